"""Decoded and resized images in one LMDB environment: one large file instead of many small ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from util.errors import UserError
from util.lmdb_images import LmdbReader, LmdbWriter

_SIZE_KEY = "load_size.size"  # no name of an image becomes this: see _key
_IN_ONE_TRANSACTION = 256  # images


def _key(name: str) -> str:
    # The environment keys by path without extension; a.jpg and a.png are two images here.
    return f"images/{name}.raw"


class PackedImages:
    """Reads what :func:`pack_images` wrote; every loader process opens the file for itself.

    :raises UserError: there is no complete pack in ``folder``, or one of another size.
    """

    def __init__(self, folder: str | Path, load_size: tuple[int, int]):
        self.folder, self.load_size = Path(folder), tuple(load_size)
        if not (self.folder / "data.mdb").is_file():
            raise UserError(f"{folder} is no pack of images; make it with script/pack_dataset.py")
        self._reader = LmdbReader(self.folder)
        if self._reader.missing([_SIZE_KEY]):
            raise UserError(
                f"{folder} is not complete; run the same script/pack_dataset.py again, it goes on "
                "where it stopped"
            )
        height, width = (int(v) for v in self._reader.read(_SIZE_KEY).split())
        if (height, width) != self.load_size:
            raise UserError(
                f"{folder} holds images of {height} x {width} pixels, but --load_size is "
                f"{self.load_size[0]} {self.load_size[1]}; pack the data set again at that size"
            )

    def check(self, names: Iterable[str]) -> None:
        """Refuse names that are not in the pack."""
        missing = self._reader.missing([_key(name) for name in names])
        if missing:
            name = missing[0].removeprefix("images/").removesuffix(".raw")
            raise UserError(
                f"{self.folder} lacks {len(missing)} images of this list, {name} first; pack every "
                "phase that is used: script/pack_dataset.py --phases train test"
            )

    def image(self, name: str) -> torch.Tensor:
        """uint8 image (3, H, W)."""
        pixels = np.frombuffer(bytearray(self._reader.read(_key(name))), dtype=np.uint8)
        return torch.from_numpy(pixels).view(3, *self.load_size)


def pack_images(
    folder: str | Path,
    load_size: tuple[int, int],
    images: Iterable[tuple[str, torch.Tensor]],  # name, uint8 (3, H, W) of load_size
) -> int:
    """Write a pack; what a stopped call wrote is kept, see :func:`missing_images`. Returns the
    number of images in it."""
    with LmdbWriter(folder) as writer:
        for chunk in _chunks(images):
            writer.put((_key(name), image.numpy().tobytes()) for name, image in chunk)
        writer.put([(_SIZE_KEY, f"{load_size[0]} {load_size[1]}".encode())])
        return writer.finish() - 1


def missing_images(folder: str | Path, load_size: tuple[int, int], names: list[str]) -> list[str]:
    """Those of ``names`` that a pack does not hold yet; UserError if it has another size."""
    with LmdbWriter(folder) as writer:
        complete = not writer.missing([_SIZE_KEY])
        missing = set(writer.missing([_key(name) for name in names]))
    if complete:
        PackedImages(folder, load_size)
    return [name for name in names if _key(name) in missing]


def _chunks(images: Iterable[tuple[str, torch.Tensor]]) -> Iterator[list]:
    chunk = []
    for image in images:
        chunk.append(image)
        if len(chunk) == _IN_ONE_TRANSACTION:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
