"""MAGPT's and NTED's text files, which name images by path and count in the uncropped frame.

MAGPT: one column a coordinate, x before y, keyed by file id. NTED and PIDM: ``<phase>_pairs.txt``,
one line an item, paths separated by commas; by default the target comes first and every further
path is a possible source; ``pose/<path>.txt``, 18 lines ``x y``.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from util.errors import UserError
from util.names import (
    check_relative_name,
    file_id,
    flatten_deepfashion_path,
    is_flat_deepfashion_name,
    unflatten_deepfashion_name,
)
from util.skeleton import MISSING, in_frame, present
from util.tables.layouts import LAYOUTS
from util.tables.patn import (
    NUM_JOINTS,
    check_new_name,
    finite_table,
    number_text,
    read_lines,
    read_table,
    write_lines,
    write_table,
)

PAIR_COLUMNS = LAYOUTS["magpt"].pair_columns
COLUMNS = (
    "file_id", "img_h", "img_w",
    *(f"p{joint}_{axis}" for joint in range(NUM_JOINTS) for axis in "xy"),
)  # fmt: skip
ORDERS = ("target_first", "source_first")


def to_path(name: str) -> str:
    """PATN's flat name -> MAGPT's and NTED's path below the data root."""
    return "img/" + (unflatten_deepfashion_name(name) if is_flat_deepfashion_name(name) else name)


def to_name(path: str) -> str:
    """MAGPT's or NTED's path -> PATN's flat name; UserError when folders would be lost."""
    inner = path.removeprefix("img/")
    if "/" not in inner:
        return inner
    try:
        return flatten_deepfashion_path(inner)
    except UserError:
        raise UserError(
            f"the image {path!r} has no flat name; expected 'img/<file>' or a DeepFashion path: "
            "move the images of your own data set into one folder first."
        ) from None


def shift(points: np.ndarray, pixels: int) -> np.ndarray:
    """Keypoints (18, 2) moved to larger x; what is missing or comes to read -1 is (-1, -1)."""
    moved = points + np.array([0, pixels])
    moved[~(present(points) & present(moved))] = MISSING
    return moved


# --- MAGPT --------------------------------------------------------------------------------------


class FramedKeypoints(NamedTuple):
    """Keypoints (18, 2), (y, x), -1 = missing, and the size (h, w) of the frame they live in."""

    points: np.ndarray
    frame: tuple[float, float]


def read_magpt_keypoints(path: str | os.PathLike) -> dict[str, FramedKeypoints]:
    """Keypoints by file id. Raises UserError, naming file and row, for anything malformed."""
    rows: dict[str, int] = {}
    values: list[list[float]] = []
    for row, (name, *fields) in read_table(path, ",", COLUMNS):
        check_new_name(rows, name, row, path, "the file id")
        try:
            values.append([float(field) for field in fields])
        except ValueError as error:
            raise UserError(
                f"{path}, row {row}: {error}; expected numbers after the file id: correct the row."
            ) from None
    table = finite_table(values, list(rows.values()), path)
    flat = np.flatnonzero((table[:, :2] < 1).any(axis=1))
    if len(flat):
        raise UserError(
            f"{path}, row {list(rows.values())[flat[0]]}: img_h or img_w is below 1; expected the "
            "size of the image in pixels: correct the row."
        )
    points = table[:, 2:].reshape(-1, NUM_JOINTS, 2)[..., ::-1]
    frames = [(h, w) for h, w in table[:, :2].tolist()]
    return {
        name: FramedKeypoints(np.ascontiguousarray(p), frame)
        for name, p, frame in zip(rows, points, frames, strict=True)
    }


def read_magpt_images(
    path: str | os.PathLike, names: Iterable[str], frame: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Keypoints in ``frame`` (h, w) of those images that have a row, by name."""
    table = read_magpt_keypoints(path)
    rows = ((name, table.get(file_id(name))) for name in names)
    return {name: in_frame(*row, frame) for name, row in rows if row}


def write_magpt_keypoints(
    path: str | os.PathLike,
    keypoints: Mapping[str, np.ndarray],  # file id -> (18, 2), (y, x)
    frame: tuple[int, int],  # (h, w)
) -> None:
    """Write a MAGPT table; coordinates become whole pixels by truncation, missing joints -1, -1."""
    whole = {name: shift(points, 0).astype(int) for name, points in keypoints.items()}
    rows = ([name, *frame, *points[:, ::-1].ravel()] for name, points in whole.items())
    write_table(path, ",", COLUMNS, rows)


# --- NTED and PIDM ------------------------------------------------------------------------------


def read_items(path: str | os.PathLike, order: str = "target_first") -> list[tuple[str, list[str]]]:
    """(target, its possible sources) of every line; UserError for a line without a source."""
    items = []
    for row, line in read_lines(path):
        where = f"{path}, row {row}"
        names = [check_relative_name(name.strip(), where) for name in line.split(",")]
        if len(names) < 2:
            raise UserError(
                f"{where}: holds one path; expected 'target,source' separated by ',': complete the "
                "row."
            )
        if order == "source_first" and len(names) > 2:
            raise UserError(
                f"{where}: holds {len(names)} paths; expected 'source,target' because of "
                "--pairs_order source_first: use target_first for lists of several sources."
            )
        target, *sources = names if order == "target_first" else names[::-1]
        items.append((target, sources))
    if not items:
        raise UserError(f"{path} is empty; expected 'target,source' lines: get or make it again.")
    return items


def write_items(path: str | os.PathLike, pairs: Iterable[tuple[str, str]]) -> None:
    """Write (source, target) pairs, one line each; UserError for a comma in a path."""
    lines = []
    for source, target in pairs:
        for name in (source, target):
            if "," in check_relative_name(name):
                raise UserError(
                    f"the path {name!r} holds ','; NTED's lists cannot: rename the file."
                )
        lines.append(f"{target},{source}\n")
    write_lines(path, lines)


def pose_path(root: str | os.PathLike, image: str) -> Path:
    """Keypoint file of an image path: below ``pose/``, suffix ``.txt``."""
    return Path(root) / "pose" / PurePosixPath(image).with_suffix(".txt")


def read_pose(path: str | os.PathLike) -> np.ndarray:
    """Keypoints (18, 2) float64, (y, x), -1 = missing, in the uncropped frame."""
    lines = read_lines(path)
    if len(lines) != NUM_JOINTS:
        raise UserError(
            f"{path}: has {len(lines)} rows; expected {NUM_JOINTS} rows 'x y', one a joint: make "
            "the file again."
        )
    values = []
    for row, line in lines:
        try:
            x, y = map(float, line.split())
        except ValueError:
            raise UserError(
                f"{path}, row {row}: is {line[:40]!r}; expected two numbers 'x y', "
                "'-1 -1' for a missing joint: correct the row."
            ) from None
        values.append([y, x])
    return finite_table(values, [row for row, _ in lines], path)


def write_pose(path: str | os.PathLike, points: np.ndarray) -> None:
    """Write keypoints (18, 2), (y, x); a missing joint is written ``-1 -1``."""
    rows = shift(points, 0).tolist()
    write_lines(path, (f"{number_text(x)} {number_text(y)}\n" for y, x in rows))
