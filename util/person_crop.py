"""A person out of a photograph and back: the crop a network sees, and the pasted result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from util.errors import UserError
from util.pose import MISSING, present

# Added around the joints, as shares of the larger of their height and (frame-shaped) width.
MARGIN_TOP = 0.15  # hair above the eyes
MARGIN_BOTTOM = 0.08  # feet below the ankles
MARGIN_SIDE = 0.10
SEAM = 0.03  # share of the crop over which a pasted result fades into the photo


@dataclass(frozen=True)
class Box:
    """A rectangle in a photo, in pixels; it may reach beyond the photo."""

    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


def whole_picture(image: Image.Image) -> Box:
    """The box of the uncropped picture."""
    return Box(0, 0, image.height, image.width)


def person_box(keypoints: np.ndarray, frame: tuple[int, int]) -> Box:
    """The box with the shape of ``frame`` (h, w) that holds a person with some margin.

    ``keypoints`` (18, 2), (y, x), -1 = missing.
    """
    points = np.asarray(keypoints)[present(np.asarray(keypoints))]
    if not len(points):
        raise UserError("no joint is given; a person cannot be cropped without any")
    (top, left), (bottom, right) = points.min(axis=0), points.max(axis=0)
    aspect = frame[0] / frame[1]
    extent = max(bottom - top, (right - left) * aspect, 8.0)
    top, bottom = top - MARGIN_TOP * extent, bottom + MARGIN_BOTTOM * extent
    side = MARGIN_SIDE * extent / aspect
    width = max(right - left + 2 * side, (bottom - top) / aspect)
    height = width * aspect
    middle_y, middle_x = (top + bottom) / 2, (left + right) / 2
    return Box(
        round(middle_y - height / 2), round(middle_x - width / 2),
        max(1, round(height)), max(1, round(width)),
    )  # fmt: skip


def cut(image: Image.Image, box: Box) -> Image.Image:
    """The content of a box; outside the photo its border pixels are repeated."""
    pixels = np.asarray(image)
    rows = np.clip(np.arange(box.top, box.top + box.height), 0, pixels.shape[0] - 1)
    columns = np.clip(np.arange(box.left, box.left + box.width), 0, pixels.shape[1] - 1)
    return Image.fromarray(pixels[rows][:, columns])


def to_frame(keypoints: np.ndarray, box: Box, frame: tuple[int, int]) -> np.ndarray:
    """Photo keypoints (18, 2) as whole pixels of ``frame`` (h, w), onto which the box is scaled."""
    points = np.asarray(keypoints, dtype=np.float64)
    scaled = np.floor((points - (box.top, box.left)) * np.array(frame) / np.array(box.size))
    scaled[scaled == MISSING] = (
        MISSING - 1
    )  # just outside the frame is not the mark of a missing joint
    return np.where(present(points)[:, None], scaled, float(MISSING))


def paste(image: Image.Image, result: Image.Image, box: Box) -> Image.Image:
    """A copy of the photo with ``result`` scaled into the box; its inner edges fade in."""
    result = result.resize((box.width, box.height), Image.Resampling.BICUBIC)
    out = image.copy()
    mask = Image.fromarray((_fade(box, image.size) * 255).astype(np.uint8))
    out.paste(result, (box.left, box.top), mask)
    return out


def _fade(box: Box, photo_size: tuple[int, int]) -> np.ndarray:
    """Opacity (h, w) of a pasted box: 1 inside, falling to 0 at edges that are not the photo's."""

    def ramp(start: int, length: int, limit: int) -> np.ndarray:
        position = np.arange(length) + 0.5
        reach = max(1.0, SEAM * length)
        rising = position / reach if start > 0 else np.ones(length)
        falling = (length - position) / reach if start + length < limit else np.ones(length)
        return np.minimum(np.minimum(rising, falling), 1)

    return np.outer(
        ramp(box.top, box.height, photo_size[1]), ramp(box.left, box.width, photo_size[0])
    )
