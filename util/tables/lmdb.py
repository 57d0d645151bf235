"""Images in LMDB environments, in the layout of NTED: one environment a size, PNG by path.

Folder ``<h>-<w>`` below the data root. Keys: the path of the image in the lists with ``.png`` for
its extension, and ``length``, the number of images in decimal, padded to five digits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import lmdb
import numpy as np
import torch

from util.errors import UserError

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


MAP_SIZE = 2**40  # address space, not disk space
LENGTH_KEY = b"length"
MAX_KEY_BYTES = 511  # a limit of LMDB

# Environments that this process reads, by folder: LMDB forbids opening a folder twice.
_open: dict[str, lmdb.Environment] = {}


def close_all() -> None:
    """Close every environment that readers have opened; they open again when they next read."""
    while _open:
        _open.popitem()[1].close()


# An environment must not be used by a forked child, and blocks the child from opening its own.
os.register_at_fork(after_in_child=close_all)


def environment_name(size: tuple[int, int]) -> str:
    """Folder name of the images of ``size`` (h, w)."""
    return f"{size[0]}-{size[1]}"


def image_key(path: str) -> bytes:
    """Key of an image: its path in the lists with the extension ``.png``."""
    key = str(PurePosixPath(path).with_suffix(".png")).encode("utf-8")
    if len(key) > MAX_KEY_BYTES:
        raise UserError(
            f"the path {path!r} has {len(key)} bytes; LMDB keys have at most {MAX_KEY_BYTES}: "
            "rename the image"
        )
    return key


class LmdbReader:
    """PNG bytes by path; every process opens the environment for itself when it first reads."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "data.mdb").is_file():
            raise UserError(
                f"{self.folder} is no LMDB environment; make it with python -m script.prepare_data "
                f"--root DATAROOT --sizes {self.folder.name.replace('-', 'x')}"
            )

    def _environment(self) -> lmdb.Environment:
        key = str(self.folder.resolve())
        if key not in _open:
            try:
                _open[key] = lmdb.open(
                    key, readonly=True, lock=False, readahead=False, meminit=False,
                    max_readers=32,
                )  # fmt: skip
            except lmdb.Error as error:
                raise UserError(
                    f"{self.folder} cannot be read ({error}); delete it and run "
                    "python -m script.prepare_data again"
                ) from error
        return _open[key]

    def __len__(self) -> int:
        """Number of images; a UserError when the preparation was interrupted."""
        with self._environment().begin() as transaction:
            length = transaction.get(LENGTH_KEY)
        if length is None or not bytes(length).isdigit():
            raise UserError(
                f"{self.folder} is not complete: its preparation was interrupted; run the same "
                "python -m script.prepare_data again, it goes on where it stopped"
            )
        return int(length)

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Those of ``paths`` that have no image."""
        with self._environment().begin() as transaction, transaction.cursor() as cursor:
            return [path for path in paths if not cursor.set_key(image_key(path))]

    def read(self, path: str) -> bytes:
        """PNG bytes of the image at ``path`` of the lists."""
        with self._environment().begin() as transaction:
            data = transaction.get(image_key(path))
        if data is None:
            raise UserError(f"{self.folder} holds no image {path}; run script.prepare_data again")
        return bytes(data)


class LmdbWriter:
    """Adds images to an environment; what is committed survives a kill. A context manager."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        close_all()  # a reader of this process would block the folder
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._environment = lmdb.open(str(self.folder), map_size=MAP_SIZE)
        except (OSError, lmdb.Error) as error:
            raise UserError(
                f"{self.folder} cannot be written ({error}); choose another --out"
            ) from error

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Those of ``paths`` that have no image yet."""
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            return [path for path in paths if not cursor.set_key(image_key(path))]

    def put(self, images: Iterable[tuple[str, bytes]]) -> None:
        """Add (path, PNG bytes) in one transaction; the environment counts as incomplete now."""
        try:
            with self._environment.begin(write=True) as transaction:
                transaction.delete(LENGTH_KEY)
                for path, data in images:
                    transaction.put(image_key(path), data)
        except lmdb.Error as error:
            raise UserError(
                f"{self.folder} cannot be written ({error}): free some space and start again; "
                "finished images are kept"
            ) from error

    def finish(self) -> int:
        """Enter the number of images, which makes the environment complete; returns it."""
        with self._environment.begin(write=True) as transaction:
            transaction.delete(LENGTH_KEY)
            count = transaction.stat()["entries"]
            transaction.put(LENGTH_KEY, f"{count:05d}".encode())
        return count

    def __enter__(self) -> LmdbWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._environment.close()
