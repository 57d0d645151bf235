"""Keypoint tables of MAGPT: one column a coordinate, x before y, keyed by file id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from util.errors import UserError
from util.skeleton import MISSING, in_frame
from util.tables.layouts import LAYOUTS
from util.tables.patn import (
    NUM_JOINTS,
    check_new_name,
    finite_table,
    read_table,
    write_table,
)

PAIR_COLUMNS = LAYOUTS["magpt"].pair_columns
COLUMNS = (
    "file_id", "img_h", "img_w",
    *(f"p{joint}_{axis}" for joint in range(NUM_JOINTS) for axis in "xy"),
)  # fmt: skip


@dataclass(frozen=True)
class FramedKeypoints:
    """Keypoints (18, 2), (y, x), -1 = missing, and the size (h, w) of the frame they live in."""

    points: np.ndarray
    frame: tuple[float, float]

    def in_frame(self, size: tuple[int, int]) -> np.ndarray:
        """The keypoints scaled to a frame of ``size`` (h, w); missing joints stay -1."""
        return in_frame(self.points, self.frame, size)


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


def write_magpt_keypoints(
    path: str | os.PathLike,
    keypoints: Mapping[str, np.ndarray],  # file id -> (18, 2), (y, x)
    frame: tuple[int, int],  # (h, w)
) -> None:
    """Write a MAGPT table; coordinates become whole pixels by truncation, missing joints -1, -1."""
    rows = []
    for name, points in keypoints.items():
        missing = (np.asarray(points) == MISSING).any(axis=1, keepdims=True)
        whole = np.where(missing, MISSING, np.asarray(points)).astype(int)
        rows.append([name, *frame, *whole[:, ::-1].ravel()])
    write_table(path, ",", COLUMNS, rows)
