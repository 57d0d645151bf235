"""Joint sets of other estimators and their conversion to the 18 joints of :data:`util.pose.JOINTS`.

A format is nothing but the ordered names of its joints; conversion looks our joints up by name. A
format without a neck (COCO, MediaPipe) gets the midpoint of the shoulders, missing when either
shoulder is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from util.errors import UserError
from util.pose import JOINTS, MISSING
from util.tables.patn import read_keypoints, read_text

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

FORMATS: dict[str, tuple[str, ...]] = {
    "openpose18": JOINTS,
    "coco17": COCO17,
    "body25": BODY25,
    "mediapipe33": MEDIAPIPE33,
    "wholebody133": WHOLEBODY133,
}


Keypoints = np.ndarray | Sequence[Sequence[float]]  # (18, 2), (y, x), -1 = missing


def checked_keypoints(keypoints: Keypoints, where: str) -> np.ndarray:
    """Given keypoints as float64 (18, 2), or a UserError that begins with ``where``."""
    points = np.asarray(keypoints, dtype=np.float64)
    if points.shape != (len(JOINTS), 2) or not np.isfinite(points).all():
        raise UserError(
            f"{where}: keypoints have the shape {points.shape}; expected 18 finite (y, x) pairs, "
            "-1 for missing joints; util.keypoint_formats converts other joint sets"
        )
    return points


def format_of(joint_count: int, where: str = "the keypoints") -> str:
    """Name of the format that has ``joint_count`` joints; the five counts are all different."""
    for name, joints in FORMATS.items():
        if len(joints) == joint_count:
            return name
    known = ", ".join(f"{len(joints)} ({name})" for name, joints in FORMATS.items())
    raise UserError(
        f"{where}: found {joint_count} joints, expected {known}: export one of these sets"
    )


def to_openpose18(
    points: np.ndarray,  # (..., K, 2), (x, y)
    scores: np.ndarray | None = None,  # (..., K); None: every joint was found
    source_format: str = "coco17",  # a key of FORMATS
    threshold: float = 0.0,  # a joint is present when its score is above this
) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) points -> our keypoints (..., 18, 2), (y, x), -1 = missing, and scores (..., 18).

    The unit of the coordinates is kept. A missing joint has score 0. The neck of a format that has
    none is the shoulder midpoint with the smaller of the two scores.
    """
    joints = FORMATS[source_format]
    points = np.asarray(points, dtype=np.float64)
    if points.shape[-2:] != (len(joints), 2):
        raise UserError(
            f"found keypoints of shape {points.shape}, expected (..., {len(joints)}, 2) for the "
            f"format {source_format}: choose the format that the estimator writes"
        )
    scores = np.ones(points.shape[:-1]) if scores is None else np.array(scores, dtype=np.float64)
    found = np.isfinite(points).all(axis=-1) & (scores > threshold)

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


class Pose(NamedTuple):
    """One pose read from a file."""

    name: str
    keypoints: np.ndarray  # (18, 2), (y, x), -1 = missing
    in_annotation_frame: bool  # True: a data set's frame; False: pixels of some photo


def read_poses(path: str | Path) -> list[Pose]:
    """All poses of a ``.csv`` (``name:keypoints_y:keypoints_x``) or ``.json`` file.

    JSON: OpenPose ("people" with "pose_keypoints_2d", 18 or 25 joints), COCO annotations or results
    ("keypoints": 17 or 133 triples), Ultralytics ("keypoints": {"x", "y", "visible"}), or a plain
    list of [x, y] or [x, y, score]. The number of joints decides the format. MediaPipe's landmarks
    ({"x", "y", "visibility"}, fractions of the picture) need "width" and "height" beside
    "landmarks".
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected keypoints as .json or .csv")
    if path.suffix.lower() == ".csv":
        table = read_keypoints(path)
        return [Pose(name, points, True) for name, points in table.items()]
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON file ({error}); export it again") from error
    poses = []
    for i, (points, scores) in enumerate(_people(content, path)):
        where = f"{path}, person {i}"
        keypoints, _ = to_openpose18(points, scores, format_of(len(points), where))
        poses.append(Pose(f"{path.stem}_{i}", keypoints, False))
    if not poses:
        raise UserError(f"{path} holds no person; expected at least one set of keypoints")
    return poses


def _people(content: Any, path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """(x, y) points (K, 2) and scores (K,) of every person in the JSON value."""
    if _is_plain(content):
        return [_triples(np.asarray(content, dtype=np.float64).ravel(), len(content[0]), path)]
    if isinstance(content, list):
        return [person for item in content for person in _people(item, path)]
    if isinstance(content, dict):
        for key in ("people", "annotations", "instances"):
            if isinstance(content.get(key), list):
                return _people(content[key], path) if content[key] else []
        if "pose_keypoints_2d" in content:
            return [_triples(content["pose_keypoints_2d"], 3, path)]
        if "landmarks" in content:
            return [_landmarks(content, path)]
        if isinstance(content.get("keypoints"), dict):
            return [_columns(content["keypoints"], path)]
        if isinstance(content.get("keypoints"), list):
            points = content["keypoints"]
            return _people(points, path) if _is_plain(points) else [_triples(points, 3, path)]
    raise UserError(
        f"{path}: found no keypoints; expected OpenPose's people/pose_keypoints_2d, COCO's "
        "keypoints, MediaPipe's landmarks or a list of [x, y, score]"
    )


def _is_plain(content: Any) -> bool:
    """[[x, y], ...] or [[x, y, score], ...]."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(point, list) and len(point) in (2, 3) for point in content)
        and len({len(point) for point in content}) == 1
    )


def _triples(flat: Any, width: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        values = np.asarray(flat, dtype=np.float64).reshape(-1, width)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: keypoints are not a list of numbers in groups of {width}; export it again"
        ) from error
    points = values[:, :2]
    if width == 3:
        return points, values[:, 2]
    return points, np.where((points == -1).any(axis=1), 0.0, 1.0)


def _columns(table: dict, path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        points = np.stack([np.float64(table["x"]), np.float64(table["y"])], axis=1)
        given = np.float64(table.get("visible", (points != 0).any(axis=1)))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: keypoints need lists x and y of the same length; export it again"
        ) from error
    return points, given


def _landmarks(content: dict, path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        size = np.array([content["width"], content["height"]], dtype=np.float64)
        marks = content["landmarks"]
        points = np.array([[mark["x"], mark["y"]] for mark in marks], dtype=np.float64)
        scores = np.array([mark.get("visibility", 1.0) for mark in marks], dtype=np.float64)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: MediaPipe landmarks are fractions of the picture; expected "
            '{"width": W, "height": H, "landmarks": [{"x": .., "y": .., "visibility": ..}, ...]}'
        ) from error
    return points * size, np.where(scores > 0.5, scores, 0.0)
