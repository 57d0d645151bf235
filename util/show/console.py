"""What a terminal shows of a training: a line a print interval, and below it one live line."""

import contextlib
import shutil
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TextIO, TypeVar

import numpy as np

from util.show.sinks import Losses, Sink

T = TypeVar("T")

REDRAW_SECONDS = 0.2
SLOW_LOADER = 0.5  # share of waiting above which the loader is named as the bottleneck
GLUE = "\N{NO-BREAK SPACE}"  # between a name and its value: a line does not break there
WINDOW = 50  # iterations over which rates are averaged


class Throughput:
    """Rates over the last iterations, pauses for saving and validation included.

    :param clock: seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._waited = 0.0
        # time, samples, seconds of waiting after each iteration
        self._marks: deque[tuple[float, int, float]] = deque(maxlen=WINDOW + 1)
        self._warm: tuple[float, int] | None = None  # end of the first iteration, which is slow

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Iterate over ``batches`` and measure the time spent waiting for each."""
        start = self._clock()
        for batch in batches:
            self._waited += self._clock() - start
            yield batch
            start = self._clock()

    def count(self, total_samples: int) -> None:
        """Call once an iteration with the number of samples trained so far."""
        now = self._clock()
        self._warm = self._warm or (now, total_samples)
        self._marks.append((now, total_samples, self._waited))

    def _window(self) -> tuple[float, ...]:
        """Seconds, samples and seconds of waiting in the window; 0 before the second iteration."""
        ends = (self._marks[0], self._marks[-1]) if self._marks else ((0, 0, 0), (0, 0, 0))
        return tuple(after - before for before, after in zip(*ends, strict=True))

    @property
    def seconds_per_sample(self) -> float:
        """Mean over the window; 0 before the second iteration."""
        seconds, samples, _ = self._window()
        return seconds / samples if samples > 0 else 0.0

    @property
    def data_share(self) -> float:
        """Part of the time spent waiting for data, 0 .. 1."""
        seconds, _, waited = self._window()
        return min(max(waited / seconds, 0.0), 1.0) if seconds > 0 else 0.0

    def seconds_left(self, samples_left: int) -> float | None:
        """Estimate from the mean rate since the start; None while it is unknown."""
        if self._warm is None:
            return None
        now, samples, _ = self._marks[-1]
        seconds, done = now - self._warm[0], samples - self._warm[1]
        return max(samples_left, 0) * seconds / done if done > 0 and seconds > 0 else None


class Console(Sink):
    """A line of losses every print interval; on a terminal also one line that is redrawn.

    Lines of losses are wrapped to the width of the terminal; the live line is cut off there, with
    epoch, position and time left in front.

    :param epochs: planned length, for the estimate of the time left.
    :param stream: None is silent, but for warnings; where it is no terminal, nothing is redrawn.
    :param clock: seconds; replaced in tests.
    """

    name = "console"

    def __init__(
        self,
        epochs: int,
        samples_per_epoch: int,
        throughput: Throughput,
        stream: TextIO | None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.epochs, self.samples_per_epoch = epochs, samples_per_epoch
        self.throughput = throughput
        self.stream = stream
        self.live = stream is not None and stream.isatty()
        self._clock, self._drawn = clock, -REDRAW_SECONDS
        self._line = ""  # what the live line shows now
        self._hint_given = False
        self._lock = threading.Lock()  # warnings may come from another thread

    def progress(self, epoch: int, samples_in_epoch: int) -> None:
        """Redraw the live line, at most five times a second."""
        if not self.live or self._clock() - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = self._clock()
        text = " | ".join(self._status(epoch, samples_in_epoch))[: _columns() - 1]
        with self._lock:
            self._write("\r" + text.ljust(len(self._line)))
            self._line = text

    def losses(self, record: Losses) -> None:
        losses = " ".join(f"{name}{GLUE}{value:.3f}" for name, value in record.losses.items())
        rates = GLUE.join(f"{name}{GLUE}{value:.2e}" for name, value in record.lrs.items())
        parts = [*self._status(record.epoch, record.samples_in_epoch), f"lr{GLUE}{rates}", losses]
        self.message(" | ".join(parts))
        share = self.throughput.data_share
        if share > SLOW_LOADER and not self._hint_given:
            self._hint_given = True
            self.message(
                f"Waiting for data takes {share:.0%} of the time: more loader processes "
                "(--nThreads) or a faster disk would speed up this training."
            )

    def message(self, text: str) -> None:
        """Write a line of its own, on a terminal wrapped; the live line continues below it."""
        if self.live:
            options = {"break_long_words": False, "break_on_hyphens": False}
            wrap = textwrap.TextWrapper(_columns() - 1, subsequent_indent="    ", **options)
            text = "\n".join(map(wrap.fill, text.split("\n")))
        text = text.replace(GLUE, " ")
        with self._lock:
            self._erase()
            self._write(f"{text}\n")

    def warn(self, text: str) -> None:
        """Write one warning to stderr without breaking the live line, if anybody can read it."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._erase()
            with contextlib.suppress(OSError):
                warn(text)

    def close(self) -> None:
        """Leave the last state of the live line standing."""
        with self._lock:
            if self._line:
                self._write("\n")
                self._line = ""

    def _status(self, epoch: int, samples_in_epoch: int) -> list[str]:
        done = samples_in_epoch / max(self.samples_per_epoch, 1)
        pace = self.throughput.seconds_per_sample
        # Of this run alone: the total of the throughput may begin with an earlier stage.
        here = (epoch - 1) * self.samples_per_epoch + samples_in_epoch
        left = self.throughput.seconds_left(self.epochs * self.samples_per_epoch - here)
        return [
            f"epoch {epoch}/{self.epochs} "
            f"{samples_in_epoch:,}/{self.samples_per_epoch:,} ({done:.0%})",
            f"{duration(left)} left",
            f"{1 / pace if pace else 0:.1f} img/s",
            f"waiting for data {self.throughput.data_share:.0%}",
        ]

    def _erase(self) -> None:
        if self._line:
            self._write("\r" + " " * len(self._line) + "\r")
            self._line = ""

    def _write(self, text: str) -> None:
        if self.stream is not None:
            self.stream.write(text)
            self.stream.flush()


def warn(text: str) -> None:
    """Write one warning to stderr."""
    sys.stderr.write(f"warning: {text}\n")
    sys.stderr.flush()


def duration(seconds: float | None) -> str:
    """``2:03:07`` or ``3 days, 4:11:00``; ``--:--`` when it is unknown."""
    return "--:--" if seconds is None else str(timedelta(seconds=round(seconds)))


def _columns() -> int:
    return max(shutil.get_terminal_size().columns, 20)


FLAT = 5.0  # grey levels: largest standard deviation over the pixels of a picture of one colour
CAUSES = (
    "too little training, a learning rate that made it diverge, networks that are not those of the "
    "options (--model, --which_epoch, --init_gain, --ema), or images that are one colour themselves"
)


class OneColour:
    """Looks at pictures one by one; may be used from several threads."""

    def __init__(self) -> None:
        self.spreads: list[float] = []

    def see(self, picture: np.ndarray) -> None:
        """Look at a uint8 picture (H, W, 3)."""
        self.spreads.append(float(picture.reshape(-1, 3).std(axis=0).max()))

    @property
    def found(self) -> bool:
        """True when there were pictures and every one was (nearly) one colour."""
        return max(self.spreads, default=FLAT) < FLAT

    def sentence(self, what: str) -> str:
        """What to tell a person; ``what`` is a plural such as "generated images"."""
        count = len(self.spreads)
        number = f"all {count:,}" if count > 1 else "the"
        return f"{number} {what} are (nearly) one colour; usual causes: {CAUSES}"
