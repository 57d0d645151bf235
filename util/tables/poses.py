"""Poses of any file: the JSON of keypoint estimators, and the keypoint tables of data sets.

A JSON value is read in three steps: into pictures, each with its people; a person into points and
scores of whatever joints the estimator has; those into our 18 joints. Of several people in one
picture one is chosen, as for photographs. Every number is checked before it is used.
"""

import json
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from util.errors import UserError
from util.keypoint_formats import JOINT_SCORE, JOINT_SETS, format_of, to_openpose18
from util.skeleton import (
    JOINTS,
    MISSING,
    Person,
    check_joint_count,
    choose_person,
    in_frame,
    present,
)
from util.tables.patn import MAX_COORDINATE, read_keypoints, read_text

POSE_FILES = (".json", ".csv")
COUNTS = {len(joints) for joints in JOINT_SETS.values()}
FRACTION = 1.5  # joints that all lie within so few pixels are fractions of the picture
MAX_SIDE = 100_000  # pixels
PERSON_KEYS = ("landmarks", "pose_keypoints_2d", "pose_keypoints", "keypoints")


class NamedPose(NamedTuple):
    """One pose read from a file."""

    name: str
    keypoints: np.ndarray  # (18, 2), (y, x), -1 = missing
    in_annotation_frame: bool  # True: a data set's frame; False: pixels of some photo
    frame: tuple[int, int] | None = None  # (h, w) of the annotation frame, where the file tells it
    fps: float | None = None  # of a sequence, where the file tells it

    def in_frame(self, frame: tuple[int, int]) -> np.ndarray:
        """The keypoints of an annotation frame in another one."""
        return in_frame(self.keypoints, self.frame or frame, frame)


class _Picture(NamedTuple):
    people: list[Any]  # JSON values, each one person
    size: tuple[float, float] | None  # (width, height), where the file tells it


def read_poses(
    path: str | Path,
    rule: str = "best",  # whom to take of several in a picture, a key of PERSON_RULES
    min_joints: int = 0,  # refuse a chosen person with fewer
    threshold: float = JOINT_SCORE,  # joints of a lower score are missing
    keep_empty: bool = False,  # a picture without anybody is a pose without joints
) -> list[NamedPose]:
    """All poses of a ``.csv`` (``name:keypoints_y:keypoints_x``) or ``.json`` file.

    JSON: OpenPose and ControlNet ("people" with "pose_keypoints_2d", 18 or 25 joints), COCO
    annotations and results ("keypoints": 17 or 133 triples, grouped by "image_id"), Ultralytics
    ("keypoints": {"x", "y", "visible"}), MMPose ("keypoints" and "keypoint_scores", single, in
    lists, or in "instance_info"), DressCode ([x, y, score, index]), or a plain list of [x, y] or
    [x, y, score], or a list of those. The number of joints decides the joint set. Fractions of the
    picture need its size: "canvas_width" and "canvas_height", or "width" and "height", which
    MediaPipe's landmarks ({"x", "y", "visibility"}) always need. A "frame", [height, width], says
    that the joints lie in an annotation frame of that size; a list "frames" with "fps" is a
    sequence, as :func:`pose_text` writes them.

    A picture in which nobody has a joint is left out. Raises UserError, beginning with the file's
    name, for anything else, and when no picture is left.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected keypoints as .json or .csv")
    if path.suffix.lower() != ".csv":
        return poses_in(read_text(path), str(path), rule, min_joints, threshold, keep_empty)
    table = read_keypoints(path)
    for name, points in table.items():
        check_joint_count(points, f"{path}, {name}", min_joints)
    return [NamedPose(name, points, True) for name, points in table.items()]


def poses_in(
    text: str | bytes,
    where: str,  # names it in messages; its stem names the poses
    rule: str = "best",
    min_joints: int = 0,
    threshold: float = JOINT_SCORE,
    keep_empty: bool = False,
) -> list[NamedPose]:
    """All poses of a JSON text, as :func:`read_poses` reads them."""
    try:
        content = json.loads(text)
        pictures = _pictures(content, where) or [_Picture([], None)]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not a JSON file ({error}); export it again") from error
    frame = _frame(content, where)
    fps = content.get("fps") if isinstance(content, dict) else None
    fps = None if fps is None else _number(fps, f'{where}: "fps"', 0.01, 1000)
    poses = []
    for i, picture in enumerate(pictures):
        name = f"{Path(where).stem}_{i}"
        place = f"{where}, picture {i}" if len(pictures) > 1 else where
        people = _people(picture, place, threshold)
        points = np.full((len(JOINTS), 2), float(MISSING))
        if people:
            points = choose_person(people, f"{where}, {name}", rule, min_joints).keypoints
        if people or keep_empty:
            poses.append(NamedPose(name, points, frame is not None, frame, fps))
    if not poses:
        raise UserError(
            f"{where} holds no person with a body joint of a score above {threshold:g}; expected "
            "at least one"
        )
    return poses


def pose_text(poses: np.ndarray, frame: tuple[int, int], fps: float | None = None) -> str:
    """Keypoints (18, 2), or a sequence (N, 18, 2), of a frame (h, w) as JSON in OpenPose's layout.

    "frame" and, for a sequence, "fps" and "frames" are added to it.
    """
    poses = np.asarray(poses, dtype=np.float64)
    people = []
    for points in poses.reshape(-1, len(JOINTS), 2):
        seen = present(points)[:, None]
        triples = np.where(seen, np.column_stack([points[:, ::-1], np.ones(len(points))]), 0.0)
        person = {"pose_keypoints_2d": np.round(triples, 3).ravel().tolist()}
        people.append({"people": [person] if seen.any() else []})
    if poses.ndim == 2:
        return json.dumps({"frame": list(frame), **people[0]})
    return json.dumps({"frame": list(frame), "fps": fps, "frames": people})


def _frame(content: Any, where: str) -> tuple[int, int] | None:
    """The "frame" of a file of ours."""
    if not isinstance(content, dict) or "frame" not in content:
        return None
    frame = content["frame"]
    sides = frame if isinstance(frame, list) else []
    if [type(side) for side in sides] != [int, int] or min(sides) < 1 or max(sides) > MAX_SIDE:
        raise UserError(
            f'{where}: "frame" is {_shown(frame)}; expected [height, width], each 1 or more'
        )
    return frame[0], frame[1]


def _pictures(content: Any, where: str) -> list[_Picture]:
    """The pictures of a JSON value in order, each with its people."""
    if isinstance(content, list):
        return _pictures_of_list(content, where)
    if isinstance(content, dict):
        size = _size(content, where)
        lists = {key: value for key, value in content.items() if isinstance(value, list)}
        for key in ("frames", "instance_info"):
            if key in lists:
                inner = _pictures_of_list(lists[key], where)
                return [_Picture(people, own or size) for people, own in inner]
        for key in ("people", "instances"):
            if key in lists:
                return [_Picture(lists[key], size)]
        if "annotations" in lists:
            return _grouped(lists["annotations"], lists.get("images", []), where)
        if "landmarks" in lists and all(isinstance(marks, list) for marks in lists["landmarks"]):
            return [_Picture([{"landmarks": marks} for marks in lists["landmarks"]], size)]
        if not content.keys().isdisjoint(PERSON_KEYS):
            return [_Picture([content], size)]
    raise UserError(
        f"{where}: found no keypoints; expected OpenPose's people/pose_keypoints_2d, COCO's or "
        "MMPose's keypoints, MediaPipe's landmarks or a list of [x, y, score]"
    )


def _pictures_of_list(items: list, where: str) -> list[_Picture]:
    if _is_points(items):
        return [_Picture([items], None)]
    if all(isinstance(item, dict) for item in items):
        if all("keypoints" in item for item in items):
            return _grouped(items, [], where)
        return [picture for item in items for picture in _pictures(item, where)]
    if all(_is_points(item) for item in items):
        return [_Picture([item], None) for item in items]
    if all(isinstance(item, list) and all(isinstance(p, dict) for p in item) for item in items):
        return [_Picture(item, None) for item in items]
    raise UserError(
        f"{where}: found a list of other things than people; expected poses, people with "
        "keypoints, or lists of those, one a picture"
    )


def _grouped(people: list, images: list, where: str) -> list[_Picture]:
    """People of COCO's lists by "image_id"; without it all belong to one picture."""

    def key(item: Any, name: str) -> str:
        return repr(item.get(name) if isinstance(item, dict) else None)

    sizes = {key(image, "id"): _size(image, where) for image in images}
    groups: dict[str, list] = {}
    for person in people:
        groups.setdefault(key(person, "image_id"), []).append(person)
    return [_Picture(group, sizes.get(image)) for image, group in groups.items()]


def _size(content: Any, where: str) -> tuple[float, float] | None:
    """(width, height) of the picture, where a JSON object tells it."""
    for keys in (("canvas_width", "canvas_height"), ("width", "height")):
        if isinstance(content, dict) and content.keys() >= set(keys):
            return tuple(_number(content[key], f'{where}: "{key}"', 1, MAX_SIDE) for key in keys)
    return None


def _people(picture: _Picture, where: str, threshold: float) -> list[Person]:
    """The people of a picture who have a joint."""
    people = []
    for i, item in enumerate(picture.people):
        person = f"{where}, person {i}"
        points, scores = _body(item, person)
        if not (scores > threshold).any():
            continue
        joints = format_of(len(points), person)
        landmarks = isinstance(item, dict) and "landmarks" in item
        if landmarks or np.abs(points[scores > threshold]).max() <= FRACTION:
            if picture.size is None:
                raise UserError(
                    f"{person}: the joints are fractions of the picture, which need the picture's "
                    'size; expected "width" and "height", or "canvas_width" and "canvas_height", '
                    "in the file"
                )
            points = points * picture.size
        keypoints, found = to_openpose18(points, scores, joints, threshold)
        if present(keypoints).any():
            people.append(Person(keypoints, found))
    return people


def _body(item: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) points (K, 2) and scores (K,) of a person; none when the body was not found."""
    if isinstance(item, list):
        item = {"keypoints": item}
    if not isinstance(item, dict) or item.keys().isdisjoint(PERSON_KEYS):
        raise UserError(f"{where}: found {_shown(item)}; expected a person with keypoints")
    values = next(item[key] for key in PERSON_KEYS if key in item)
    if values is None or values == []:
        return np.empty((0, 2)), np.empty(0)
    if "landmarks" in item:
        values = _landmarks(values, where)
    if isinstance(values, dict):
        return _columns(values, where)
    return _listed(values, item.get("keypoint_scores"), where)


def _is_points(content: Any) -> bool:
    """[[x, y], ...], [[x, y, score], ...] or [[x, y, score, index], ...]."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(point, list) and 2 <= len(point) <= 4 for point in content)
        and len({len(point) for point in content}) == 1
        and not any(isinstance(value, list | dict) for point in content for value in point)
    )


def _listed(values: Any, given: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Points of a flat list or a list of points; ``given`` are scores beside them."""
    if _is_points(values):
        width = len(values[0])
        values = list(chain.from_iterable(values))
    else:
        count = len(values) if isinstance(values, list) else 0
        width = 2 if count / 2 in COUNTS and count // 3 not in COUNTS else 3
    numbers = _numbers(values, where)
    if len(numbers) % width:
        raise UserError(
            f"{where}: {len(numbers)} numbers are no keypoints in groups of {width}; expected x, "
            "y and score of every joint: export it again"
        )
    table = numbers.reshape(-1, width)
    points = table[:, :2]
    if width == 4 and not np.array_equal(table[:, 3], np.arange(len(table))):
        raise UserError(
            f"{where}: the joints have 4 numbers each, and the fourth is not the index of the "
            "joint; expected [x, y, score]"
        )
    if given is not None:
        scores = _numbers(given, f"{where}, keypoint_scores")
        if len(scores) != len(points):
            raise UserError(
                f"{where}: {len(scores)} keypoint_scores for {len(points)} keypoints; expected one "
                "each"
            )
        return points, scores
    if width == 2:  # missing joints are written as (0, 0) or (-1, -1)
        return points, np.where((points == -1).any(axis=1) | ~points.any(axis=1), 0.0, 1.0)
    return points, table[:, 2]


def _columns(table: dict, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Ultralytics: {"x": [...], "y": [...], "visible": [...]}."""
    x, y = (_numbers(table.get(key, []), where) for key in ("x", "y"))
    seen = ((x != 0) | (y != 0)).astype(np.float64) if len(x) == len(y) else []
    if "visible" in table:
        seen = _numbers(table["visible"], f"{where}, visible")
    if not len(x) == len(y) == len(seen):
        raise UserError(f"{where}: keypoints need lists x and y of the same length, visible too")
    return np.column_stack([x, y]), seen


def _landmarks(marks: Any, where: str) -> dict[str, list]:
    """MediaPipe's list of points, which are fractions of the picture, as columns."""
    if not isinstance(marks, list) or not all(
        isinstance(mark, dict) and "x" in mark and "y" in mark for mark in marks
    ):
        raise UserError(
            f"{where}: MediaPipe landmarks are fractions of the picture; expected "
            '{"width": W, "height": H, "landmarks": [{"x": .., "y": .., "visibility": ..}, ...]}'
        )
    seen = [mark.get("visibility", 1.0) for mark in marks]
    return {axis: [mark[axis] for mark in marks] for axis in "xy"} | {"visible": seen}


def _number(value: Any, what: str, low: float, high: float) -> float:
    """A JSON number in a range; strings, null and true are none."""
    if type(value) not in (int, float) or not low <= value <= high:
        raise UserError(f"{what} is {_shown(value)}; expected a number from {low:g} to {high:g}")
    return float(value)


def _numbers(values: Any, where: str) -> np.ndarray:
    """A JSON list of numbers as float64."""
    if not isinstance(values, list):
        raise UserError(f"{where}: found {_shown(values)}; expected a list of numbers")
    what = f"{where}: keypoints are not a list of numbers of pixels: one"
    return np.array([_number(v, what, -MAX_COORDINATE, MAX_COORDINATE) for v in values])


def _shown(value: Any) -> str:
    """A JSON value for a message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        return "a list"
    return json.dumps(value)[:40]
