"""Images in LMDB environments, in the layout of NTED: one environment a size, PNG by path.

Folder ``<h>-<w>`` below the data root. Keys: the path of the image in the lists with ``.png`` for
its extension, and ``length``, the number of images in decimal, padded to five digits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import lmdb

from util.errors import UserError

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
