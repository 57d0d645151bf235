"""NTED's and PIDM's text files: pairs lists of paths, and one keypoint file an image.

``<phase>_pairs.txt``: one line an item, paths separated by commas; by default the target comes
first and every further path is a possible source. ``pose/<path>.txt``: 18 lines ``x y`` in the
uncropped frame.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from util.errors import UserError
from util.files import make_folder, write_file
from util.names import check_relative_name
from util.skeleton import MISSING
from util.tables.patn import NUM_JOINTS, finite_table, number_text, read_text

ORDERS = ("target_first", "source_first")


def read_items(path: str | os.PathLike, order: str = "target_first") -> list[tuple[str, list[str]]]:
    """(target, its possible sources) of every line; UserError for a line without a source."""
    items = []
    for row, line in enumerate(io.StringIO(read_text(path)), start=1):
        if not line.strip():
            continue
        names = [name.strip() for name in line.split(",")]
        for name in names:
            check_relative_name(name, f"{path}, row {row}")
        if len(names) < 2:
            raise UserError(
                f"{path}, row {row}: holds one path; expected 'target,source' separated by ',': "
                "complete the row."
            )
        if order == "source_first" and len(names) > 2:
            raise UserError(
                f"{path}, row {row}: holds {len(names)} paths; expected 'source,target' because of "
                "--pairs_order source_first: use target_first for lists of several sources."
            )
        target, *sources = names if order == "target_first" else names[::-1]
        items.append((target, sources))
    if not items:
        raise UserError(f"{path} is empty; expected 'target,source' lines: get or make it again.")
    return items


def write_items(
    path: str | os.PathLike, pairs: Iterable[tuple[str, str]], order: str = "target_first"
) -> None:
    """Write (source, target) pairs, one line each; UserError for a comma in a path."""
    lines = []
    for pair in pairs:
        for name in pair:
            check_relative_name(name)
            if "," in name:
                raise UserError(
                    f"the path {name!r} holds ','; NTED's lists cannot: rename the file."
                )
        lines.append(",".join(pair if order == "source_first" else pair[::-1]) + "\n")
    make_folder(Path(path).parent)
    write_file(path, "".join(lines).encode("utf-8"))


def pose_path(root: str | os.PathLike, image: str) -> Path:
    """Keypoint file of an image path: below ``pose/``, suffix ``.txt``."""
    return Path(root) / "pose" / PurePosixPath(image).with_suffix(".txt")


def read_pose(path: str | os.PathLike) -> np.ndarray:
    """Keypoints (18, 2) float64, (y, x), -1 = missing, in the uncropped frame."""
    lines = [line.split() for line in io.StringIO(read_text(path)) if line.strip()]
    if len(lines) != NUM_JOINTS:
        raise UserError(
            f"{path}: has {len(lines)} rows; expected {NUM_JOINTS} rows 'x y', one a joint: make "
            "the file again."
        )
    values = []
    for row, words in enumerate(lines, start=1):
        try:
            x, y = (float(word) for word in words)
        except ValueError:
            raise UserError(
                f"{path}, row {row}: is {' '.join(words)[:40]!r}; expected two numbers 'x y', "
                "'-1 -1' for a missing joint: correct the row."
            ) from None
        values.append([y, x])
    return finite_table(values, list(range(1, NUM_JOINTS + 1)), path)


def write_pose(path: str | os.PathLike, points: np.ndarray) -> None:
    """Write keypoints (18, 2), (y, x); a joint with one coordinate -1 is written ``-1 -1``."""
    rows = [
        (MISSING, MISSING) if MISSING in (y, x) else (number_text(x), number_text(y))
        for y, x in points.tolist()
    ]
    make_folder(Path(path).parent)
    write_file(path, "".join(f"{x} {y}\n" for x, y in rows).encode("utf-8"))
