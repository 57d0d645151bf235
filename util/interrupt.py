"""Stopping a training run politely: signals and a time limit."""

from __future__ import annotations

import signal
import time
from types import FrameType

# Exit statuses of train.py besides 0 (finished) and 2 (user error).
EXIT_NOT_FINITE = 3  # stopped by --on_nan stop
EXIT_NOT_SAVED = 4  # stopped, but the last checkpoint could not be written
EXIT_INTERRUPTED = 75  # stopped by a signal or --max_minutes, saved; start again with --continue_train


class StopRequest:
    """Remembers that the run was asked to stop; the loop finishes its step, saves and leaves.

    SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (SLURM's warning before pre-emption) ask; a second SIGINT
    interrupts at once. Use as a context manager: the previous handlers are restored.
    """

    SIGNALS = tuple(
        getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
    )

    def __init__(self, max_minutes: float | None = None):
        self.reason: str | None = None
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in self.SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason is not None:
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name

    def requested(self) -> bool:
        """True once a signal arrived or the time is over."""
        if self.reason is None and self._deadline is not None and time.monotonic() > self._deadline:
            self.reason = "--max_minutes"
        return self.reason is not None
