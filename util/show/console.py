"""One live progress line in the terminal; in a file or pipe, one line a print interval."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from util.show.sinks import Losses, Sink, Throughput

REDRAW_SECONDS = 0.2
SLOW_LOADER = 0.5  # share of waiting above which the loader is named as the bottleneck


class Console(Sink):
    """Epoch, speed, share of time waiting for data, time left, learning rate and the last losses.

    :param epochs: planned length, for the estimate of the time left.
    :param stream: stdout by default; where it is no terminal, only losses and messages are written.
    :param clock: seconds; replaced in tests.
    """

    name = "console"

    def __init__(
        self,
        epochs: int,
        samples_per_epoch: int,
        throughput: Throughput,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.epochs = epochs
        self.samples_per_epoch = samples_per_epoch
        self.planned_samples = epochs * samples_per_epoch
        self.throughput = throughput
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self._clock = clock
        self._drawn = -REDRAW_SECONDS
        self._line = ""  # what the live line shows now
        self._losses = ""
        self._lock = threading.Lock()  # warnings may come from another thread
        self._hint_given = False

    def progress(self, epoch: int, samples_in_epoch: int, total_samples: int) -> None:
        """Redraw the live line, at most five times a second."""
        if not self.live or self._clock() - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = self._clock()
        text = self._status(epoch, samples_in_epoch, total_samples) + self._losses
        with self._lock:
            self._draw(text)

    def losses(self, record: Losses) -> None:
        self._losses = f" | lr {_shown_rates(record.lrs)} | {_shown_losses(record.losses)}"
        text = self._status(record.epoch, record.samples_in_epoch, record.total_samples)
        if self.live:
            with self._lock:
                self._draw(text + self._losses)
        else:
            self.message(text + self._losses)
        if record.data_share > SLOW_LOADER and not self._hint_given:
            self._hint_given = True
            self.message(
                f"Waiting for data takes {record.data_share:.0%} of the time: more loader "
                "processes (--nThreads) or a faster disk would speed up this training."
            )

    def message(self, text: str) -> None:
        """Write a line of its own; the live line continues below it."""
        with self._lock:
            self._erase()
            self._write(text + "\n")

    def warn(self, text: str) -> None:
        """Write one warning to stderr without breaking the live line, if anybody can read it."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._erase()
            with contextlib.suppress(OSError):
                sys.stderr.write(_encodable(f"warning: {text}\n", sys.stderr))
                sys.stderr.flush()

    def close(self) -> None:
        """Leave the last state of the live line standing."""
        with self._lock:
            if self._line:
                self._write("\n")
                self._line = ""

    def _status(self, epoch: int, samples_in_epoch: int, total_samples: int) -> str:
        done = samples_in_epoch / max(self.samples_per_epoch, 1)
        left = self.throughput.seconds_left(self.planned_samples)
        return (
            f"epoch {epoch}/{self.epochs}"
            f" {samples_in_epoch:,}/{self.samples_per_epoch:,} ({done:.0%})"
            f" | {self.throughput.samples_per_second:.1f} img/s"
            f" | waiting for data {self.throughput.data_share:.0%}"
            f" | {duration(left)} left"
        )

    def _draw(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        text = text if len(text) <= width else text[: max(width - 3, 0)] + "..."
        self._write("\r" + text.ljust(len(self._line)))
        self._line = text

    def _erase(self) -> None:
        if self._line:
            self._write("\r" + " " * len(self._line) + "\r")
            self._line = ""

    def _write(self, text: str) -> None:
        self.stream.write(_encodable(text, self.stream))
        self.stream.flush()


class SilentConsole(Console):
    """The console of the other processes of a distributed run: no output but warnings."""

    def __init__(self) -> None:
        super().__init__(0, 0, Throughput())
        self.live = False

    def losses(self, record: Losses) -> None:
        """Nothing: the first process shows them."""

    def message(self, text: str) -> None:
        """Nothing: the first process says it."""


def duration(seconds: float | None) -> str:
    """``2:03:07`` or ``3d 04:11``; ``--:--`` when it is unknown."""
    if seconds is None:
        return "--:--"
    minutes, seconds_ = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{seconds_:02d}"


def _shown_rates(lrs: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.2e}" for name, value in lrs.items())


def _shown_losses(losses: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in losses.items())


def _encodable(text: str, stream: TextIO) -> str:
    """Terminals that are not UTF-8 show a question mark instead of stopping a week of training."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
