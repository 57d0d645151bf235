"""Pairs and keypoints in the one representation that all text formats are converted through.

It is PATN's: flat names, and keypoints in the frame of the cropped image. MAGPT and NTED count x
from the edge of the uncropped 256 x 256 DeepFashion image, 40 pixels further left.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from util.errors import UserError
from util.names import (
    flatten_deepfashion_path,
    is_flat_deepfashion_name,
    unflatten_deepfashion_name,
)
from util.skeleton import MISSING
from util.tables.layouts import CROP_BOX, LAYOUTS, RELEASE_SIZE


@dataclass
class Annotations:
    """Pairs, keypoints (18, 2) (y, x) of the cropped frame and image names of one phase.

    ``notes`` tells, sentence by sentence, what a reader or writer could not keep.
    """

    pairs: list[tuple[str, str]] = field(default_factory=list)
    keypoints: dict[str, np.ndarray] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Conversion:
    """Between which frames and orders annotations are converted."""

    mode: str = "fashion"  # fashion or market: file names and frames
    keep_outside: bool = True  # joints outside the cropped frame stay, or become missing
    pairs_order: str = "target_first"  # of the lines of NTED's pairs lists

    @property
    def frame(self) -> tuple[int, int]:
        """(h, w) of the cropped frame."""
        return LAYOUTS[self.mode].annotation_size

    @property
    def full_frame(self) -> tuple[int, int]:
        """(h, w) of the frame MAGPT and NTED use."""
        return RELEASE_SIZE if self.mode == "fashion" else self.frame

    @property
    def offset(self) -> int:
        """Pixels from the edge of the full frame to the edge of the cropped one."""
        return CROP_BOX[0] if self.mode == "fashion" else 0


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


def to_full_frame(points: np.ndarray, conversion: Conversion) -> np.ndarray:
    """Cropped frame -> full frame: x + offset; both coordinates of a missing joint are -1."""
    full = points + np.array([0, conversion.offset])
    full[(points == MISSING).any(axis=1)] = MISSING
    return full


def to_cropped_frame(
    keypoints: dict[str, np.ndarray], conversion: Conversion, notes: list[str]
) -> dict[str, np.ndarray]:
    """Full frame -> cropped frame: x - offset. What becomes missing is counted in ``notes``."""
    (height, width), aliased, outside = conversion.frame, 0, 0
    cropped = {}
    for name, full in keypoints.items():
        points = full - np.array([0, conversion.offset])
        missing = (full == MISSING).any(axis=1)
        lost = ~missing & (points == MISSING).any(axis=1)
        aliased += int(lost.sum())
        if not conversion.keep_outside:
            beyond = ((points < 0) | (points >= (height, width))).any(axis=1) & ~missing & ~lost
            outside += int(beyond.sum())
            lost |= beyond
        points[missing | lost] = MISSING
        cropped[name] = points
    if aliased:
        notes.append(
            f"{aliased} joints lie at x = {conversion.offset + MISSING}, which is written -1 in "
            "the cropped frame: they became missing."
        )
    if outside:
        notes.append(f"{outside} joints outside the cropped frame became missing.")
    return cropped
