"""Many pictures in one: side by side in a grid, or one after the other in a GIF or an MP4."""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import GifImagePlugin, Image, ImageDraw

from util.errors import UserError
from util.files import OutputError, replacing
from util.image import save_image

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
        header = Image.new("RGB", (size[1], HEADER), "white")
        for caption, left in zip(captions, lefts, strict=True):
            ImageDraw.Draw(header).text((left, 1), caption, fill="black")
        sheet[:HEADER] = header
    for row, height in zip(rows, heights, strict=True):
        for picture, left in zip(row, lefts, strict=False):
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        top += height + gap
    return sheet


PALETTE_FRAMES = 100  # the palette is made from so many frames, which are held for it
COLOURS_FROM = 16  # of these, evenly spread
SHEET_COLUMNS = 8
SHEET_FRAMES = 400
GIF_FRAMES = 2000  # more make a file that no viewer likes
GIF_FPS = 50  # times are hundredths of a second, and browsers take 1 for 10
Frames = Iterable[np.ndarray]  # uint8 (h, w, 3), all of one size


def write_gif(path: Path, frames: Frames, fps: float, plays: int) -> None:
    """A GIF with one palette for all frames, so that nothing flickers; ``plays`` 0: for ever.

    ``fps`` is at most GIF_FPS.
    """
    frames = iter(frames)
    first = list(islice(frames, PALETTE_FRAMES))
    some = first[:: max(1, len(first) // COLOURS_FROM)]
    colours = Image.fromarray(np.concatenate(some)).quantize(256, Image.Quantize.MEDIANCUT)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        for number, frame in enumerate(chain(first, frames)):
            picture = Image.fromarray(frame).quantize(palette=colours, dither=Image.Dither.NONE)
            # times are whole hundredths of a second: rounded so that they do not add up to a drift
            time = round(100 * (number + 1) / fps) - round(100 * number / fps)
            options = {"duration": 10 * max(time, 2)}
            if number == 0:  # a GIF that tells no loops plays once, else once more than it tells
                loops = {} if plays == 1 else {"loop": max(plays - 1, 0)}
                head, _ = GifImagePlugin.getheader(picture, info=options | loops)
                stream.write(b"".join(head))
            stream.write(b"".join(GifImagePlugin.getdata(picture, **options)))
        stream.write(b";")


def write_mp4(path: Path, frames: Frames, fps: float, plays: int) -> None:
    """An MP4 by OpenCV (MPEG-4 part 2), sides padded to even ones; players repeat it or do not."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "video.mp4"
        writer = None
        for frame in frames:
            height, width = frame.shape[:2]
            padded = cv2.copyMakeBorder(
                frame[..., ::-1], 0, height % 2, 0, width % 2, cv2.BORDER_CONSTANT
            )
            if writer is None:
                code = cv2.VideoWriter_fourcc(*"mp4v")
                writer = cv2.VideoWriter(str(whole), code, fps, padded.shape[1::-1])
                if not writer.isOpened():
                    raise UserError(f"{path}: this OpenCV cannot write MP4 files; write a .gif")
            writer.write(padded)
        if writer is not None:
            writer.release()
        if not whole.is_file() or not whole.stat().st_size:
            raise OutputError(f"{path} could not be written (no space for temporary files?)")
        with replacing(path) as temporary:
            shutil.copyfile(whole, temporary)


def write_sheet(path: Path, frames: Frames, fps: float, plays: int) -> None:
    """A contact sheet of all frames, row by row."""
    save_image(path, grid(in_rows(list(islice(frames, SHEET_FRAMES)), SHEET_COLUMNS)))


WRITERS: dict[str, Callable[[Path, Frames, float, int], None]] = {
    ".gif": write_gif,
    ".mp4": write_mp4,
    ".png": write_sheet,
}
# Most frames, and most frames a second.
LIMITS = {
    ".gif": (GIF_FRAMES, GIF_FPS),
    ".mp4": (1_000_000, math.inf),
    ".png": (SHEET_FRAMES, math.inf),
}
