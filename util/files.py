"""Writing small files so that they are complete or absent at every moment."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

from util.errors import UserError


def end_with_parent() -> None:
    """Let this worker end when the process that started it is killed; an initializer of pools.

    A killed process cannot tell its pool, whose workers would wait for their next task for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait, args=(parent,), daemon=True).start()


def _wait(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


SUFFIX = ".part"  # of files being written


class OutputError(UserError):
    """The destination is full or closed: going on with the next file would not help."""


def write_file(path: str | os.PathLike, data: bytes) -> None:
    """Write bytes under a temporary name and rename; OutputError when that is impossible."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:40]}.{os.getpid()}{SUFFIX}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except (OSError, ValueError) as error:
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{path} cannot be written ({reason}): free some space or choose another place, then "
            "start again; finished files are kept."
        ) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(path: str | os.PathLike) -> None:
    """OutputError unless a file can be written at ``path``, whose folder may not exist yet."""
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
