"""The geometry of MAGPT's inference API: pictures of any size into 256 x 256 and out again.

Roundings are the published ones, to the pixel (Python's round half to even included).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from util.errors import UserError
from util.pose import MISSING

SIZE = 256
WHITE = (255, 255, 255)


def strip_width(width: int, height: int, size: int = SIZE) -> int:
    """Columns that are kept of a width x height picture at ``size`` rows: at most 11/16 of it."""
    columns = size * width // height
    if columns < 1:
        raise UserError(
            f"the picture is {width} x {height} pixels, too narrow for a person; crop it to the "
            "person"
        )
    return min(columns, size * 11 // 16)


def fit(image: Image.Image, size: int = SIZE) -> Image.Image:
    """An RGB picture as ``size`` x ``size``: scaled to that height, at most 11:16 wide, on white.

    Wider pictures lose their left and right sides.
    """
    kept = strip_width(*image.size, size)
    columns = size * image.width // image.height
    image = image.resize((columns, size), Image.Resampling.BICUBIC)
    left = round((columns - kept) / 2)
    canvas = Image.new("RGB", (size, size), WHITE)
    canvas.paste(image.crop((left, 0, left + kept, size)), (_margin(kept, size), 0))
    return canvas


def fit_keypoints(
    keypoints: np.ndarray,  # (18, 2), (y, x) pixels of the picture, -1 = missing
    image_size: tuple[int, int],  # (h, w) of the picture
    size: int = SIZE,
) -> np.ndarray:
    """Whole-pixel keypoints after :func:`fit`; joints in a side that is cut off become missing."""
    height, width = image_size
    kept = strip_width(width, height, size)
    columns = size * width // height
    points = np.asarray(keypoints, dtype=np.float64)
    missing = (points == MISSING).any(axis=-1)
    scale = np.array([size / height, columns / width])
    moved = np.rint((points + 0.5) * scale - 0.5)  # pixel centres
    moved[:, 1] -= round((columns - kept) / 2)
    missing |= (moved < 0).any(axis=-1) | (moved[:, 0] >= size) | (moved[:, 1] >= kept)
    moved[:, 1] += _margin(kept, size)
    moved[missing] = MISSING
    return moved


def crop_result(image: Image.Image, reference_size: tuple[int, int]) -> Image.Image:
    """Middle columns of a result, as wide as the reference picture (w, h) is after :func:`fit`."""
    kept = strip_width(*reference_size, image.height)
    left = round((image.width - kept) / 2)
    return image.crop((left, 0, left + kept, image.height))


def _margin(kept: int, size: int) -> int:
    """White columns left of a strip: the published code pads by p all around, crops the centre.

    For odd p this is one more than :func:`crop_result` cuts off; both are as published.
    """
    padding = size - kept
    return padding - round(padding / 2)
