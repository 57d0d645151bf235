"""How errors and interruptions become one sentence and an exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable

from util.errors import UserError
from util.run.interrupt import EXIT_AT_ONCE, ignore_signals_of_a_stopped_run

EXIT_USER_ERROR = 2


# Refusals of the file system, not bugs of ours.
_DISK_ERRORS = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EROFS EACCES EPERM EIO ESTALE EMFILE ENFILE".split()  # noqa: SIM905
    if hasattr(errno, name)
}


def run_main(
    main: Callable[[], int | None],
    debug: bool | None = None,
    cleanup: Callable[[], None] | None = None,  # called on every way out
) -> None:
    """Run an entry point and exit with its status.

    A :class:`UserError` becomes one line on stderr and exit status 2, and so do exhausted memory,
    a full or forbidden disk and a loader process that died; ``--debug`` anywhere on the command
    line shows the full traceback instead. Other exceptions keep their traceback: they are bugs.
    Ctrl-C is status 130.
    """
    if debug is None:
        debug = "--debug" in sys.argv
    try:
        try:
            status = main() or 0
        finally:
            if cleanup is not None:
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
        for line in getattr(error, "lines", ()):
            _say(line)
        _say(f"error: {sentence}")
        status = EXIT_USER_ERROR
    finally:
        ignore_signals_of_a_stopped_run()
        _forget_what_nobody_reads()
    sys.exit(status)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it
        print(text, file=sys.stderr)


def _forget_what_nobody_reads() -> None:
    """Let output without a reader (a closed terminal, ``| head``) not change the exit status."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def explain(error: BaseException) -> str | None:
    """One sentence for an exception that is not a bug, else None."""
    if isinstance(error, UserError):
        return " ".join(error.sentence.split())
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        place = error.filename or "a file"
        return (
            f"{place} cannot be read or written ({os.strerror(error.errno)}); free space, check "
            "the permissions or choose another place"
        )
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker (pid"):
        return (
            f"a loader process died ({text[:100].rstrip(' .')}): usually the memory or the shared "
            "memory was exhausted; use fewer --nThreads or a smaller --batchSize, and "
            "--continue_train resumes"
        )
    out_of_memory = "not enough memory" in text or "out of memory" in text.lower()
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and out_of_memory):
        return (
            f"the memory is exhausted ({text[:120]}); use a smaller --batchSize (with --accumulate "
            "for the same step), a smaller network or --precision bf16"
        )
    return None
