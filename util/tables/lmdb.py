"""Images in LMDB environments, in the layout of NTED: one environment a size, PNG by path.

Folder ``<h>-<w>`` below the data root. Keys: the path of the image in the lists with ``.png`` for
its extension, and ``length``, the number of images in decimal, padded to five digits.
"""

import contextlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import lmdb

from util.errors import UserError
from util.files import make_folder

FIRST_MAP = 2**26  # bytes of address space; doubled whenever they are full
LENGTH_KEY = b"length"
MAX_KEY_BYTES = 511  # a limit of LMDB

# Environments that this process reads, by folder: LMDB forbids opening a folder twice.
_open: dict[str, lmdb.Environment] = {}


def close_all() -> None:
    """Close every environment, whoever reads in it: readers open it again when they next read."""
    while _open:
        _open.popitem()[1].close()


# An environment must not be used by a forked child, and blocks the child from opening its own.
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
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


def _missing(transaction: lmdb.Transaction, paths: Iterable[str]) -> list[str]:
    with transaction.cursor() as cursor:
        return [path for path in paths if not cursor.set_key(image_key(path))]


class LmdbReader:
    """PNG bytes by path; every process opens the environment for itself when it first reads."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "data.mdb").is_file():
            raise UserError(
                f"{self.folder} is no LMDB environment; make it with python -m script.prepare_data "
                f"--root DATAROOT --sizes {self.folder.name.replace('-', 'x')}"
            )
        check_complete(self.folder / "data.mdb")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        key = str(self.folder.resolve())
        try:
            if key not in _open:
                _open[key] = lmdb.open(key, readonly=True, lock=False, readahead=False)
            with _open[key].begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise UserError(
                f"{self.folder} cannot be read ({error}): copy it again, or delete it and run "
                "python -m script.prepare_data again"
            ) from error

    def __len__(self) -> int:
        """Number of images; a UserError when the preparation was interrupted."""
        with self._reading() as transaction:
            length = transaction.get(LENGTH_KEY)
        if length is None or not bytes(length).isdigit():
            raise UserError(
                f"{self.folder} is not complete: its preparation was interrupted; run the same "
                "python -m script.prepare_data again, it goes on where it stopped"
            )
        return int(length)

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Those of ``paths`` that have no image."""
        with self._reading() as transaction:
            return _missing(transaction, paths)

    def read(self, path: str) -> bytes:
        """PNG bytes of the image at ``path`` of the lists."""
        with self._reading() as transaction:
            data = transaction.get(image_key(path))
        if data is None:
            raise UserError(f"{self.folder} holds no image {path}; run script.prepare_data again")
        return bytes(data)


class LmdbWriter(contextlib.AbstractContextManager):
    """Adds images to an environment; what is committed survives a kill. A context manager."""

    def __init__(self, folder: str | Path):
        self.folder = make_folder(folder)
        close_all()  # a reader of this process would block the folder
        file = self.folder / "data.mdb"
        size = file.stat().st_size if file.is_file() else 0
        if size:
            check_complete(file)
        self._map_size = max(FIRST_MAP, 2 * size)
        with self._explained():
            self._environment = lmdb.open(str(self.folder), map_size=self._map_size)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except lmdb.MapFullError:
            raise  # there is more address space, see put
        except (lmdb.Error, OSError) as error:
            raise UserError(
                f"{self.folder} cannot be written ({error}): free some space, choose another --out "
                "or allow more addresses (ulimit -v unlimited), and start again; finished images "
                "are kept"
            ) from error

    def __len__(self) -> int:
        """Number of images."""
        with self._environment.begin() as transaction:
            return transaction.stat()["entries"] - (transaction.get(LENGTH_KEY) is not None)

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Those of ``paths`` that have no image yet."""
        with self._environment.begin() as transaction:
            return _missing(transaction, paths)

    def mark_incomplete(self) -> None:
        """Count the environment as incomplete: some of its images will be replaced."""
        self._write(lambda transaction: transaction.delete(LENGTH_KEY))

    def put(self, images: Sequence[tuple[str, bytes]]) -> None:
        """Add (path, PNG bytes) in one transaction; the environment counts as incomplete now."""

        def add(transaction: lmdb.Transaction) -> None:
            transaction.delete(LENGTH_KEY)
            for path, data in images:
                transaction.put(image_key(path), data)

        self._write(add)

    def finish(self) -> int:
        """Enter the number of images, which makes the environment complete; returns it."""

        def count(transaction: lmdb.Transaction) -> int:
            transaction.delete(LENGTH_KEY)
            images = transaction.stat()["entries"]
            transaction.put(LENGTH_KEY, f"{images:05d}".encode())
            return images

        return self._write(count)

    def _write(self, change: Callable[[lmdb.Transaction], Any]) -> Any:
        """Make one change whole; the map grows until it fits."""
        while True:
            try:
                with self._explained(), self._environment.begin(write=True) as transaction:
                    return change(transaction)
            except lmdb.MapFullError:
                self._map_size *= 2
                with self._explained():
                    self._environment.set_mapsize(self._map_size)

    def __exit__(self, *exception: object) -> None:
        self._environment.close()


# --- is the file whole? -------------------------------------------------------------------------
# LMDB maps the file into memory: reading a page that a cut file lacks ends the process by SIGBUS.
# The layout below is that of LMDB 0.9 on 64-bit machines (lmdb.h, mdb.c).

_PAGE = struct.Struct("<Q2xHH2x")  # number, flags, end of the pointers
_META = struct.Struct("<II16xI36xQ40xQ8xQ")  # magic, version, page size, two roots, transaction
_MAGIC = (0xBEEFC0DE, 1)
_BRANCH, _LEAF, _BIG_DATA = 0x01, 0x02, 0x01
_NO_PAGE = 2**64 - 1


def check_complete(path: Path) -> None:
    """UserError when pages that the newest trees name lie beyond the end of the file, or are none.

    The nodes of the trees are read, not the images: a moment for 50,000 of them. An environment of
    another version or machine is left to LMDB.
    """
    with path.open("rb") as file:
        size, metas, page_size = file.seek(0, 2), [], 4096
        for place in (0, 1):
            file.seek(place * page_size + _PAGE.size)
            data = file.read(_META.size)
            if len(data) < _META.size:
                raise UserError(f"{path} is cut off: it has {size:,} bytes; copy it again")
            *kind, page_size, free, main, transaction = _META.unpack(data)
            if tuple(kind) != _MAGIC:
                return
            metas.append((transaction, free, main))
        waiting = [root for root in max(metas)[1:] if root != _NO_PAGE]
        while waiting:
            number = waiting.pop()
            file.seek(number * page_size)
            children, end = _named_by(file.read(page_size), number, page_size)
            if end * page_size > size:
                raise UserError(
                    f"{path} is cut off: it has {size:,} bytes and needs {end * page_size:,} or "
                    "more; copy it again"
                )
            if children is None:
                raise UserError(f"{path} is damaged at byte {number * page_size:,}; copy it again")
            waiting += children


def _named_by(page: bytes, number: int, page_size: int) -> tuple[list[int] | None, int]:
    """Pages below a page of the tree, and the end (in pages) of all that it names.

    None for bytes that are no such page.
    """
    if len(page) < page_size:
        return [], number + 1
    own, flags, lower = _PAGE.unpack_from(page)
    if own != number or not flags & (_BRANCH | _LEAF) or not _PAGE.size <= lower <= page_size:
        return None, 0
    children, end = [], number + 1
    for place in struct.unpack_from(f"<{(lower - _PAGE.size) // 2}H", page, _PAGE.size):
        if place + 8 > page_size:
            return None, 0
        low, high, more, key = struct.unpack_from("<HHHH", page, place)
        if flags & _BRANCH:
            children.append(low | high << 16 | more << 32)
        elif more & _BIG_DATA and place + 8 + key + 8 <= page_size:
            (first,) = struct.unpack_from("<Q", page, place + 8 + key)
            pages = (_PAGE.size - 1 + (low | high << 16)) // page_size + 1
            end = max(end, first + pages)
    return children, end
