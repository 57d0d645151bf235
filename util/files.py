"""Writing files so that they are complete or absent at every moment, and reading JSON: the one
place that does it."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from util.errors import UserError

SUFFIX = ".tmp"  # of files being written; their names begin with a dot
_unfinished: set[Path] = set()  # temporary files of this process
_LONGEST = 200  # bytes of a name that go into its temporary name; file systems allow 255 in all


class OutputError(UserError):
    """The destination is full or closed: going on with the next file would not help."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike, durable: bool = False) -> Iterator[Path]:
    """An empty file beside ``path`` to be written in the block; it takes its place at the end.

    The name cannot be guessed, an existing file or link is never opened, permissions are those of
    any new file. ``durable``: the bytes are on the disk before the rename. When the block fails,
    ``path`` is untouched and nothing is left behind.
    """
    path = Path(path)
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST])
    temporary = path.with_name(f".{name}.{secrets.token_hex(6)}{SUFFIX}")
    _unfinished.add(temporary)
    try:  # from before the file exists on: Ctrl-C may come between any two lines
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary
        if durable:
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # when it did not take its place
        _unfinished.discard(temporary)


def discard_unfinished() -> None:
    """Remove what this process was writing when it was interrupted; call it on the way out.

    Ctrl-C can fall between the lines of a context manager, where no clean-up can be written.
    """
    while _unfinished:
        with contextlib.suppress(OSError):
            _unfinished.pop().unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write bytes, to the disk; the file appears whole or not at all. Raises OSError."""
    with replacing(path, durable=True) as temporary:
        temporary.write_bytes(data)


def write_file(path: str | os.PathLike, data: bytes) -> None:
    """Like :func:`write_atomically`, not synchronized; OutputError when that is impossible."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{path} cannot be written ({reason}): free some space or choose another place, then "
            "start again; finished files are kept."
        ) from None


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process was writing in ``folder`` (not below it)."""
    for leftover in folder.glob(f".*{SUFFIX}"):
        leftover.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike, read: Iterable[str | os.PathLike] = ()) -> None:
    """OutputError unless a file can be written at ``path``, whose folder may not exist yet, and
    replaces nothing that is ``read``."""
    for given in map(Path, read):
        if given.exists() and Path(path).exists() and given.samefile(path):
            raise OutputError(f"{path} would replace {given}, which is read; choose another name")
    path = Path(path).absolute()
    nearest = next(folder for folder in path.parents if folder.exists())
    if path.is_dir():
        reason = "it is a folder"
    elif not nearest.is_dir():
        reason = f"{nearest} is a file"
    elif not os.access(nearest, os.W_OK):
        reason = f"nothing may be written in {nearest}"
    else:
        return
    raise OutputError(f"{path} cannot be written ({reason}): choose another place.")


def make_folder(path: str | os.PathLike) -> Path:
    """Create a folder and its parents; OutputError when that is impossible."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder {path} cannot be made ({error.strerror}): choose another place."
        ) from None
    return Path(path)


def existing_folder(path: str | os.PathLike, option: str, remedy: str) -> Path:
    """The folder that an option names; a UserError, with what to do, when there is none."""
    path = Path(path)
    if not path.is_dir():
        found = "is a file, not a folder" if path.exists() else "no such folder"
        raise UserError(f"{option} {path}: {found}; {remedy}")
    return path


def read_json(path: str | os.PathLike, remedy: str) -> Any:
    """The value in a JSON file; a UserError, with what to do, when it cannot be read as one."""
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except RecursionError:
        problem = "is not valid JSON (nested too deeply)"
    except ValueError as error:
        problem = f"is not valid JSON ({str(error)[:200]})"
    raise UserError(f"{path} {problem}; {remedy}")
