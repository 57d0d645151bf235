"""How errors and interruptions become one sentence and an exit status."""

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from util.errors import UserError
from util.files import discard_unfinished
from util.run.interrupt import EXIT_AT_ONCE, ignore_signals_of_a_stopped_run

EXIT_USER_ERROR = 2


# Refusals of the file system, not bugs of ours, and what to do about them.
_FREE = "free space, check the permissions or choose another place"
_MANY = "close other programs, raise the limit (ulimit -n) or use fewer workers"
_LONG = "a file system takes names of at most 255 bytes: choose a shorter one"
_ADVICE = dict.fromkeys(["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE"], _FREE)
_ADVICE |= {"EMFILE": _MANY, "ENFILE": _MANY, "ENAMETOOLONG": _LONG}
_NO_READER = {errno.EPIPE, errno.EIO, errno.EBADF}  # of a stream: closed, or its terminal is


def run_main(
    main: Callable[[], int | None],
    debug: bool | None = None,
    cleanup: Callable[[], object] = lambda: None,  # called on every way out
) -> None:
    """Run an entry point and exit with its status.

    A :class:`UserError` becomes one line on stderr and exit status 2, and so do exhausted memory,
    a full or forbidden disk and a loader process that died; ``--debug`` anywhere on the command
    line shows the full traceback instead. Other exceptions keep their traceback: they are bugs.
    Ctrl-C is status 130.
    """
    debug = "--debug" in sys.argv if debug is None else debug
    _prepare_streams()
    try:
        try:
            status = main() or 0
        finally:
            cleanup()
    except KeyboardInterrupt:
        if debug:
            raise
        _say("interrupted")
        status = EXIT_AT_ONCE
    except Exception as error:
        sentence = explain(error)
        if debug or sentence is None:
            raise
        _say(*getattr(error, "lines", ()), f"error: {sentence}")
        status = EXIT_USER_ERROR
    finally:
        ignore_signals_of_a_stopped_run()
        discard_unfinished()
        for stream in (sys.stdout, sys.stderr):
            try:  # unread output (a closed terminal, ``| head``) does not change the exit status
                stream.flush()
            except OSError:
                _lead_nowhere(stream)
    sys.exit(status)


def _say(*lines: str) -> None:
    with contextlib.suppress(OSError):  # a log on a full disk does not change the exit status
        print(*lines, sep="\n", file=sys.stderr)


class _Stream:
    """stdout or stderr of a command that goes on when nobody reads it any more."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what the stream can show; nothing once its reader is gone."""
        with self._without_reader():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._without_reader():
            self._stream.flush()

    @contextlib.contextmanager
    def _without_reader(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _NO_READER:
                raise
            _lead_nowhere(self._stream)


def _lead_nowhere(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _prepare_streams() -> None:
    """Let no output stop the work: a closed stream, one without a reader, or a terminal that
    cannot show a letter, which then appears as its code."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed (>&-): the next file to be opened would take its place
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__"):
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, _Stream(stream))


def explain(error: BaseException) -> str | None:
    """One sentence for an exception that is not a bug, else None."""
    if isinstance(error, UserError):
        return " ".join(error.sentence.split())
    text = " ".join(str(error).split())
    training = Path(sys.argv[0]).name == "train.py"
    resume = ", and --continue_train resumes" * training
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker (pid"):
        return (
            f"a loader process died ({text[:100].rstrip(' .')}): usually the memory or the shared "
            f"memory was exhausted; {_SMALLER} (docker run --shm-size=2g){resume}"
        )
    if _of_shared_memory(error, text):
        return (
            f"the shared memory of the loader processes is full ({text[:120]}); {_SMALLER} (docker "
            f"run --shm-size=2g), or --workers 0{resume}"
        )
    advice = _ADVICE.get(errno.errorcode.get(getattr(error, "errno", None), ""))
    if isinstance(error, OSError) and advice:
        place = f"{error.filename} cannot be" if error.filename else "a file could not be"
        reason = os.strerror(error.errno)
        return f"{place} read or written ({reason}); {advice}"
    if _of_memory(error, text):
        more = " (with --accumulate for the same step), --precision bf16" * training
        return (
            f"the memory is exhausted ({text[:120]}); use a smaller --batchSize{more}, a smaller "
            "network or fewer --workers"
        )
    if isinstance(error, UnicodeEncodeError):
        return (
            f"a name holds bytes or letters that cannot be written ({text[:120]}); rename it, or "
            "use a UTF-8 locale"
        )
    return None


_SMALLER = "use fewer --workers, a smaller --batchSize or more shared memory"


def _of_shared_memory(error: BaseException, text: str) -> bool:
    """True when /dev/shm, through which loader processes hand over batches, is too small."""
    if isinstance(error, RuntimeError):
        words = ("shared memory", "shm", "unable to write to file </torch", "Bus error")
        return any(word in text for word in words)
    if not isinstance(error, OSError) or error.errno != errno.ENOSPC or error.filename:
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).parent.name == "multiprocessing" for frame in frames)


def _of_memory(error: BaseException, text: str) -> bool:
    if isinstance(error, RuntimeError):
        words = ("not enough memory", "out of memory", "can't allocate memory", "cannot allocate")
        return any(word in text.lower() for word in words)
    of_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return of_system or isinstance(error, MemoryError)
