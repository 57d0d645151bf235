"""Pictures side by side: the one place that puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

Thing = TypeVar("Thing")

GAP = 4  # white pixels between pictures
HEADER = 14  # pixels, for the captions of the columns
WHITE = 255


def in_rows(things: Sequence[Thing], columns: int) -> list[Sequence[Thing]]:
    """Rows of ``columns`` things each; the last one may be shorter."""
    return [things[i : i + columns] for i in range(0, len(things), columns)]


def grid(
    rows: Sequence[Sequence[np.ndarray]],  # of uint8 pictures (h, w, 3), of any sizes
    captions: Sequence[str] = (),  # of the columns, written above them
    gap: int = GAP,
) -> np.ndarray:
    """All pictures in one on white, uint8 (H, W, 3): rows below each other, columns aligned.

    A column is as wide as its widest picture, a row as high as its highest one. Rows may differ in
    length.
    """
    columns = max(map(len, rows))
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    lefts = [sum(widths[:c]) + c * gap for c in range(columns)]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    top = HEADER if captions else 0
    size = (top + sum(heights) + gap * (len(rows) - 1), lefts[-1] + widths[-1], 3)
    sheet = np.full(size, WHITE, dtype=np.uint8)
    if captions:
        sheet[:HEADER] = _header(captions, lefts, size[1])
    for row, height in zip(rows, heights, strict=True):
        for picture, left in zip(row, lefts, strict=False):
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        top += height + gap
    return sheet


def _header(captions: Sequence[str], lefts: Sequence[int], width: int) -> np.ndarray:
    header = Image.new("RGB", (width, HEADER), "white")
    for caption, left in zip(captions, lefts, strict=True):
        ImageDraw.Draw(header).text((left, 1), caption, fill="black")
    return np.asarray(header)
