"""Stopping a training run politely: signals and a time limit."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

# Exit statuses of train.py besides 0 (finished) and 2 (user error).
EXIT_NOT_FINITE = 3  # stopped by --on_nan stop
EXIT_NOT_SAVED = 4  # ended, but the last checkpoint could not be written
EXIT_INTERRUPTED = 75  # by a signal or --max_minutes, and saved; --continue_train goes on
EXIT_AT_ONCE = 130  # a second Ctrl-C: left without waiting for the save

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
        self.reason: str | None = None
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

    @property
    def cause(self) -> str:
        """What asked for the stop, in words."""
        return self.reason or "another process"

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
