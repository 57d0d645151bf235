"""Joint sets of other estimators and their conversion to the 18 of :data:`util.skeleton.JOINTS`.

A format is nothing but the ordered names of its joints; conversion looks our joints up by name. A
format without a neck (COCO, MediaPipe) gets the midpoint of the shoulders, missing when either
shoulder is.
"""

from collections.abc import Sequence

import numpy as np

from util.errors import UserError
from util.skeleton import JOINTS, MISSING

COCO17 = (
    "nose", "left eye", "right eye", "left ear", "right ear",
    "left shoulder", "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist",
    "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle",
)  # fmt: skip
BODY25 = (
    "nose", "neck",
    "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "middle hip", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
    "left big toe", "left small toe", "left heel", "right big toe", "right small toe", "right heel",
)  # fmt: skip
MEDIAPIPE33 = (
    "nose", "left eye inner", "left eye", "left eye outer",
    "right eye inner", "right eye", "right eye outer", "left ear", "right ear",
    "mouth left", "mouth right",
    "left shoulder", "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist",
    "left pinky", "right pinky", "left index", "right index", "left thumb", "right thumb",
    "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle",
    "left heel", "right heel", "left foot index", "right foot index",
)  # fmt: skip
# COCO-WholeBody, as DWPose and RTMW give it: COCO-17, then 6 feet, 68 face and 42 hand points.
WHOLEBODY133 = COCO17 + tuple(f"wholebody {i}" for i in range(len(COCO17), 133))

JOINT_SCORE = 0.3  # estimators are usually trusted from here on

JOINT_SETS: dict[str, tuple[str, ...]] = {
    "openpose18": JOINTS,
    "coco17": COCO17,
    "body25": BODY25,
    "mediapipe33": MEDIAPIPE33,
    "wholebody133": WHOLEBODY133,
}


Keypoints = np.ndarray | Sequence[Sequence[float]]  # (18, 2), (y, x), -1 = missing


def checked_keypoints(keypoints: Keypoints, where: str) -> np.ndarray:
    """Given keypoints as float64 (18, 2), or a UserError that begins with ``where``."""
    try:
        points = np.asarray(keypoints, dtype=np.float64)
        found = f"have the shape {points.shape}"
    except (ValueError, TypeError, OverflowError):  # pairs of different length, words
        points, found = np.empty(0), "are not a table of numbers"
    if points.shape != (len(JOINTS), 2) or not np.isfinite(points).all():
        raise UserError(
            f"{where}: keypoints {found}; expected 18 finite (y, x) pairs, -1 for missing joints; "
            "util.keypoint_formats converts other joint sets"
        )
    return points


def format_of(joint_count: int, where: str = "the keypoints") -> str:
    """Name of the format that has ``joint_count`` joints; the five counts are all different."""
    names = {len(joints): name for name, joints in JOINT_SETS.items()}
    if joint_count in names:
        return names[joint_count]
    known = ", ".join(f"{count} ({name})" for count, name in names.items())
    raise UserError(
        f"{where}: found {joint_count} joints, expected {known}: export one of these sets"
    )


def to_openpose18(
    points: np.ndarray,  # (..., K, 2), (x, y)
    scores: np.ndarray | None = None,  # (..., K); None: every joint was found
    source_format: str = "coco17",  # a key of JOINT_SETS
    threshold: float = JOINT_SCORE,  # a joint is present when its score is above this
) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) points -> our keypoints (..., 18, 2), (y, x), -1 = missing, and scores (..., 18).

    The unit of the coordinates is kept. A missing joint has score 0. The neck of a format that has
    none is the shoulder midpoint with the smaller of the two scores.
    """
    joints = JOINT_SETS[source_format]
    points = np.asarray(points, dtype=np.float64)
    if points.shape[-2:] != (len(joints), 2):
        raise UserError(
            f"found keypoints of shape {points.shape}, expected (..., {len(joints)}, 2) for the "
            f"format {source_format}: choose the format that the estimator writes"
        )
    scores = np.ones(points.shape[:-1]) if scores is None else np.array(scores, dtype=np.float64)
    found = (np.isfinite(points) & (points != MISSING)).all(axis=-1) & (scores > threshold)

    columns = [joints.index(joint) if joint in joints else 0 for joint in JOINTS]
    out, out_scores, out_found = points[..., columns, :], scores[..., columns], found[..., columns]
    if "neck" not in joints:
        neck = JOINTS.index("neck")
        sides = [joints.index("right shoulder"), joints.index("left shoulder")]
        out[..., neck, :] = points[..., sides, :].mean(axis=-2)
        out_scores[..., neck] = scores[..., sides].min(axis=-1)
        out_found[..., neck] = found[..., sides].all(axis=-1)
    keypoints = np.where(out_found[..., None], out[..., ::-1], float(MISSING))
    return keypoints, np.where(out_found, out_scores, 0.0)
