"""Pictures in motion: a GIF of one palette, an MP4 or a contact sheet, written as they come."""

from __future__ import annotations

import io
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from util.errors import UserError
from util.files import OutputError, replacing
from util.image import save_image
from util.show.grid import grid, in_rows

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
            head, block = _gif_parts(picture)
            if number == 0:
                stream.write(head)
                # A GIF without this block plays once, with it once more than it says.
                if plays != 1:
                    again = 0 if plays == 0 else plays - 1
                    stream.write(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", again) + b"\0")
            # times are whole hundredths of a second: rounded so that they do not add up to a drift
            time = round(100 * (number + 1) / fps) - round(100 * number / fps)
            stream.write(b"!\xf9\x04\x04" + struct.pack("<H", max(time, 2)) + b"\0\0" + block)
        stream.write(b";")


def _gif_parts(picture: Image.Image) -> tuple[bytes, bytes]:
    """Header with the palette, and the image block, of a palette picture as Pillow writes it."""
    buffer = io.BytesIO()
    picture.save(buffer, "GIF", optimize=False)
    data = buffer.getvalue()
    head = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    start = head
    while data[start] == 0x21:  # extensions before the image: label, then blocks up to an empty one
        start += 2
        while data[start]:
            start += data[start] + 1
        start += 1
    return b"GIF89a" + data[6:head], data[start:-1]  # 89a: has times and loops


def write_mp4(path: Path, frames: Frames, fps: float, plays: int) -> None:
    """An MP4 by OpenCV (MPEG-4 part 2), sides padded to even ones; players repeat it or do not."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "video.mp4"
        writer, size = None, (0, 0)
        for frame in frames:
            height, width = (side + side % 2 for side in frame.shape[:2])
            if writer is None:
                size = (width, height)
                code = cv2.VideoWriter_fourcc(*"mp4v")
                writer = cv2.VideoWriter(str(whole), code, fps, size)
                if not writer.isOpened():
                    raise UserError(f"{path}: this OpenCV cannot write MP4 files; write a .gif")
            padded = np.zeros((height, width, 3), np.uint8)
            padded[: frame.shape[0], : frame.shape[1]] = frame[..., ::-1]
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
LIMITS = {".gif": GIF_FRAMES, ".mp4": 1_000_000, ".png": SHEET_FRAMES}
