"""How a command ends: errors, signals and a time limit become one sentence and an exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from util.errors import UserError
from util.files import discard_unfinished

# Exit statuses besides 0 (finished); the middle three are train.py's.
EXIT_USER_ERROR = 2
EXIT_NOT_FINITE = 3  # stopped by --on_nan stop
EXIT_NOT_SAVED = 4  # ended, but the last checkpoint could not be written
EXIT_INTERRUPTED = 75  # by a signal or --max_minutes, and saved; --continue_train goes on
EXIT_AT_ONCE = 130  # Ctrl-C; in train.py a second one: left without waiting for the save

# Refusals of the file system, not bugs of ours, and what to do about them.
_FREE = "free space, check the permissions or choose another place"
_MANY = "close other programs, raise the limit (ulimit -n) or use fewer workers"
_LONG = "a file system takes names of at most 255 bytes: choose a shorter one"
_ADVICE = dict.fromkeys(["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE"], _FREE)
_ADVICE |= {"EMFILE": _MANY, "ENFILE": _MANY, "ENAMETOOLONG": _LONG}
_NO_READER = {errno.EPIPE, errno.EIO, errno.EBADF}  # of a stream: closed, or its terminal is


def run_main(
    main: Callable[[], int | None],
    cleanup: Callable[[], object] = lambda: None,  # called on every way out
) -> None:
    """Run an entry point and exit with its status.

    A :class:`UserError` becomes one line on stderr and exit status 2, and so do exhausted memory,
    a full or forbidden disk and a loader process that died; ``--debug`` anywhere on the command
    line shows the full traceback instead. Other exceptions keep their traceback: they are bugs.
    Ctrl-C is status 130.
    """
    debug = "--debug" in sys.argv
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


_SMALLER = "use fewer --workers, a smaller --batchSize or more shared memory"
_OF_SHARED_MEMORY = ("shared memory", "shm", "unable to write to file </torch", "Bus error")
_OF_MEMORY = ("not enough memory", "out of memory", "can't allocate memory", "cannot allocate")


def explain(error: BaseException) -> str | None:
    """One sentence for an exception that is not a bug, else None."""
    if isinstance(error, UserError):
        return " ".join(error.sentence.split())
    text = " ".join(str(error).split())
    of_torch = text if isinstance(error, RuntimeError) else ""
    number = error.errno if isinstance(error, OSError) else None
    training = Path(sys.argv[0]).name == "train.py"
    resume = ", and --continue_train resumes" * training
    if of_torch.startswith("DataLoader worker (pid"):
        return (
            f"a loader process died ({text[:100].rstrip(' .')}): usually the memory or the shared "
            f"memory was exhausted; {_SMALLER} (docker run --shm-size=2g){resume}"
        )
    if any(word in of_torch for word in _OF_SHARED_MEMORY) or _handing_over(error):
        return (
            f"the shared memory of the loader processes is full ({text[:120]}); {_SMALLER} (docker "
            f"run --shm-size=2g), or --workers 0{resume}"
        )
    if advice := _ADVICE.get(errno.errorcode.get(number, "")):
        place = f"{error.filename} cannot be" if error.filename else "a file could not be"
        return f"{place} read or written ({os.strerror(number)}); {advice}"
    exhausted = isinstance(error, MemoryError) or number == errno.ENOMEM
    if exhausted or any(word in of_torch.lower() for word in _OF_MEMORY):
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


def _handing_over(error: BaseException) -> bool:
    """True when /dev/shm, through which loader processes hand over batches, is too small."""
    if not isinstance(error, OSError) or error.errno != errno.ENOSPC or error.filename:
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).parent.name == "multiprocessing" for frame in frames)


# ---- stopping a training run politely ----------------------------------------------------------

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")


class StopRequest:
    """Remembers that the run was asked to stop; the loop finishes its step, saves and leaves.

    SIGTERM, SIGINT (Ctrl-C), SIGUSR1 (SLURM's warning before pre-emption) and SIGHUP (the terminal
    was closed; under nohup it stays without effect) ask; a second SIGINT interrupts at once.
    Until :meth:`begin` is called there is nothing to save, and every signal ends the process:
    SIGINT as usual, the others with ``EXIT_INTERRUPTED``. Use as a context manager: the previous
    handlers are restored, except after a signal. The process is then on its way out, and impatient
    further signals must not cut off what makes that orderly; see
    :func:`ignore_signals_of_a_stopped_run`.
    """

    SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))

    def __init__(self, max_minutes: float | None = None):
        self.reason: str | None = None  # what asked for the stop, here
        self._begun = False
        self._asked: set[int] = set()  # the signals that did
        self._leaving = False  # at once, or after the save: signals have no effect any more
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in self.SIGNALS:
            hangup = number == getattr(signal, "SIGHUP", None)
            nohup = hangup and signal.getsignal(number) is signal.SIG_IGN
            if not nohup:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._asked or self._leaving:
            self._leaving = True
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._leaving:
            return
        if not self._begun or (number == signal.SIGINT and number in self._asked):
            self._leaving = True
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(EXIT_INTERRUPTED)
        self._asked.add(number)
        self.reason = self.reason or signal.Signals(number).name

    def begin(self) -> None:
        """From now on a signal waits for the end of the step."""
        self._begun = True

    def requested(self) -> bool:
        """True once a signal arrived or the time is over; call it after every step."""
        if self._leaving:  # a destructor or a callback of a library swallowed the interrupt
            raise KeyboardInterrupt
        if self.reason is None and self._deadline is not None and time.monotonic() > self._deadline:
            self.reason = "--max_minutes"
        return self.reason is not None


def ignore_signals_of_a_stopped_run() -> None:
    """Call it last: nothing can change the exit status of a run that was stopped by a signal.

    The handlers of its :class:`StopRequest` already do nothing, but Python takes handlers away
    while it shuts down, and a signal would then end the process in the default manner. Without
    effect where no stopped run has left its handlers.
    """
    report, sys.unraisablehook = sys.unraisablehook, lambda _: None
    for number in StopRequest.SIGNALS:
        if isinstance(getattr(signal.getsignal(number), "__self__", None), StopRequest):
            # A signal that arrives during this call is reported as "ignored due to race condition".
            signal.signal(number, signal.SIG_IGN)
    sys.unraisablehook = report


def shield_worker() -> None:
    """Let a loader process outlive the signals that ask the whole job to stop.

    SLURM, ``timeout`` and a terminal signal every process of a job; the batches must keep coming
    until the training process has finished its step. The process ends when its parent says so or
    dies.
    """
    for number in set(StopRequest.SIGNALS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere nobody can tell who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    """End this process at a SIGTERM of its parent, and at no other."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
