"""Poses of any file: the JSON of keypoint estimators, and the keypoint tables of data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from util.errors import UserError
from util.keypoint_formats import format_of, to_openpose18
from util.skeleton import MISSING, present
from util.tables.patn import read_keypoints, read_text


class NamedPose(NamedTuple):
    """One pose read from a file."""

    name: str
    keypoints: np.ndarray  # (18, 2), (y, x), -1 = missing
    in_annotation_frame: bool  # True: a data set's frame; False: pixels of some photo
    frame: tuple[int, int] | None = None  # (h, w) of the annotation frame, where the file tells it

    def in_frame(self, frame: tuple[int, int]) -> np.ndarray:
        """The keypoints of an annotation frame in another one."""
        if self.frame is None or tuple(self.frame) == tuple(frame):
            return self.keypoints
        scaled = self.keypoints * (np.array(frame) / np.array(self.frame))
        return np.where(present(self.keypoints)[:, None], scaled, float(MISSING))


def read_poses(path: str | Path) -> list[NamedPose]:
    """All poses of a ``.csv`` (``name:keypoints_y:keypoints_x``) or ``.json`` file.

    JSON: OpenPose ("people" with "pose_keypoints_2d", 18 or 25 joints), COCO annotations or results
    ("keypoints": 17 or 133 triples), Ultralytics ("keypoints": {"x", "y", "visible"}), or a plain
    list of [x, y] or [x, y, score]. The number of joints decides the format. MediaPipe's landmarks
    ({"x", "y", "visibility"}, fractions of the picture) need "width" and "height" beside
    "landmarks". A "frame", [height, width], beside them says that the joints lie in an annotation
    frame of that size, as :func:`pose_text` writes them.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected keypoints as .json or .csv")
    if path.suffix.lower() == ".csv":
        table = read_keypoints(path)
        return [NamedPose(name, points, True) for name, points in table.items()]
    return poses_in(read_text(path), str(path))


def poses_in(text: str | bytes, where: str) -> list[NamedPose]:
    """All poses of a JSON text, as :func:`read_poses` reads them; ``where`` names it."""
    try:
        content = json.loads(text)
        frame, people = _frame(content, where), _people(content, where)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not a JSON file ({error}); export it again") from error
    poses = []
    for i, (points, scores) in enumerate(people):
        person = f"{where}, person {i}"
        keypoints, _ = to_openpose18(points, scores, format_of(len(points), person))
        poses.append(NamedPose(f"{Path(where).stem}_{i}", keypoints, frame is not None, frame))
    if not poses:
        raise UserError(f"{where} holds no person; expected at least one set of keypoints")
    return poses


def pose_text(keypoints: np.ndarray, frame: tuple[int, int]) -> str:
    """Keypoints (18, 2), (y, x), of a frame (h, w) as JSON in OpenPose's layout, "frame" added."""
    points, seen = np.asarray(keypoints, dtype=np.float64), present(np.asarray(keypoints))
    triples = np.where(seen[:, None], np.column_stack([points[:, ::-1], np.ones(len(points))]), 0.0)
    person = {"pose_keypoints_2d": triples.ravel().tolist()}
    return json.dumps({"frame": list(frame), "people": [person]})


def _frame(content: Any, where: str) -> tuple[int, int] | None:
    """The "frame" of a file of ours."""
    if not isinstance(content, dict) or "frame" not in content:
        return None
    frame = content["frame"]
    if (
        not isinstance(frame, list)
        or len(frame) != 2
        or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in frame)
    ):
        raise UserError(
            f'{where}: "frame" is {str(frame)[:60]}; expected [height, width] in whole pixels'
        )
    return frame[0], frame[1]


def _people(content: Any, where: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(x, y) points (K, 2) and scores (K,) of every person in the JSON value."""
    if _is_plain(content):
        return [_triples([v for point in content for v in point], len(content[0]), where)]
    if isinstance(content, list):
        return [person for item in content for person in _people(item, where)]
    if isinstance(content, dict):
        for key in ("people", "annotations", "instances"):
            if isinstance(content.get(key), list):
                return _people(content[key], where) if content[key] else []
        if "pose_keypoints_2d" in content:
            return [_triples(content["pose_keypoints_2d"], 3, where)]
        if "landmarks" in content:
            return [_landmarks(content, where)]
        if isinstance(content.get("keypoints"), dict):
            return [_columns(content["keypoints"], where)]
        if isinstance(content.get("keypoints"), list):
            points = content["keypoints"]
            return _people(points, where) if _is_plain(points) else [_triples(points, 3, where)]
    raise UserError(
        f"{where}: found no keypoints; expected OpenPose's people/pose_keypoints_2d, COCO's "
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


def _triples(flat: Any, width: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        values = np.asarray(flat, dtype=np.float64).reshape(-1, width)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"{where}: keypoints are not a list of numbers in groups of {width}; export it again"
        ) from error
    points = values[:, :2]
    if width == 3:
        return points, values[:, 2]
    return points, np.where((points == -1).any(axis=1), 0.0, 1.0)


def _columns(table: dict, where: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        points = np.stack([np.float64(table["x"]), np.float64(table["y"])], axis=1)
        given = np.float64(table.get("visible", (points != 0).any(axis=1)))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"{where}: keypoints need lists x and y of the same length; export it again"
        ) from error
    return points, given


def _landmarks(content: dict, where: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        size = np.array([content["width"], content["height"]], dtype=np.float64)
        marks = content["landmarks"]
        points = np.array([[mark["x"], mark["y"]] for mark in marks], dtype=np.float64)
        scores = np.array([mark.get("visibility", 1.0) for mark in marks], dtype=np.float64)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{where}: MediaPipe landmarks are fractions of the picture; expected "
            '{"width": W, "height": H, "landmarks": [{"x": .., "y": .., "visibility": ..}, ...]}'
        ) from error
    return points * size, np.where(scores > 0.5, scores, 0.0)
