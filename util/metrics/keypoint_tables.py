"""Keypoint files for the metrics: our tables and MAGPT's, by the stem of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from util.annotations import read_keypoints
from util.errors import UserError
from util.magpt_annotations import read_magpt_keypoints
from util.names import stem

COMMON_FRAME = (256, 256)  # (h, w) to which keypoints with frames of their own are brought
Keypoints = dict[str, np.ndarray]


def read_target_table(path: Path) -> tuple[Keypoints, tuple[int, int] | None]:
    """Keypoints (18, 2) (y, x) of target images, and their frame (h, w) when the file knows it."""
    if _is_magpt(path):
        framed = read_magpt_keypoints(path)
        return {name: k.in_frame(COMMON_FRAME) for name, k in framed.items()}, COMMON_FRAME
    return _plain(path), None


def read_result_table(path: Path) -> Keypoints:
    """Keypoints (18, 2) (y, x) of generated images, in their pixels."""
    if _is_magpt(path):
        return {name: keypoints.points for name, keypoints in read_magpt_keypoints(path).items()}
    return _plain(path)


def default_table(gt: Path) -> Path | None:
    """The annotation file beside a ground-truth folder, when there is exactly one."""
    found = sorted(gt.resolve().parent.glob(f"*annotation-{gt.resolve().name}.csv"))
    return found[0] if len(found) == 1 else None


def _plain(path: Path) -> Keypoints:
    return {stem(name): keypoints for name, keypoints in read_keypoints(path).items()}


def _is_magpt(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.readline().startswith("file_id")
    except OSError as error:
        raise UserError(f"the keypoint file {path} cannot be read ({error.strerror}).") from error
