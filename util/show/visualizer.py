"""What a training run shows: on its console, in logs, in windows and on a web page.

A terminal gets a line a print interval, and below those one live line.
"""

import contextlib
import math
import shutil
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np

from util.show.sinks import FixedImages, Images, Losses, LossHistory, Sink

T = TypeVar("T")

REDRAW_SECONDS = 0.2
SLOW_LOADER = 0.5  # share of waiting above which the loader is named as the bottleneck
GLUE = "\N{NO-BREAK SPACE}"  # between a name and its value: a line does not break there
WINDOW = 50  # iterations over which rates are averaged
EARLY = 2000  # samples; before, pictures of one colour are nothing to worry about


class Throughput:
    """Rates over the last iterations, pauses for saving and validation included."""

    def __init__(self) -> None:
        self._waited = 0.0
        # time, samples, seconds of waiting after each iteration
        self._marks: deque[tuple[float, int, float]] = deque(maxlen=WINDOW + 1)
        self._warm: tuple[float, int] | None = None  # end of the first iteration, which is slow

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Iterate over ``batches`` and measure the time spent waiting for each."""
        start = time.perf_counter()
        for batch in batches:
            self._waited += time.perf_counter() - start
            yield batch
            start = time.perf_counter()

    def count(self, total_samples: int) -> None:
        """Call once an iteration with the number of samples trained so far."""
        now = time.perf_counter()
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
    """

    name = "console"

    def __init__(self, epochs: int, samples_per_epoch: int, stream: TextIO | None):
        self.epochs, self.samples_per_epoch, self.stream = epochs, samples_per_epoch, stream
        self.throughput = Throughput()
        self.live = stream is not None and stream.isatty()
        self._drawn = -math.inf
        self._line = ""  # what the live line shows now
        self._hint_given = False
        self._lock = threading.Lock()  # warnings may come from another thread

    def progress(self, epoch: int, samples_in_epoch: int) -> None:
        """Redraw the live line, at most five times a second."""
        now = time.perf_counter()
        if not self.live or now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = now
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


FLAT = 5.0  # grey levels: the spread of a picture of one colour stays below
CAUSES = (
    "too little training, a learning rate that made it diverge, networks that are not those of the "
    "options (--model, --which_epoch, --init_gain, --ema), or images that are one colour themselves"
)


def spread(picture: np.ndarray) -> float:
    """Standard deviation over the pixels of a uint8 picture (H, W, 3), of the widest channel."""
    return float(picture.reshape(-1, 3).std(axis=0).max())


def one_colour(spreads: Sequence[float], what: str) -> str:
    """A sentence when there are pictures and every one is (nearly) one colour, else nothing.

    ``what`` is a plural such as "generated images".
    """
    if max(spreads, default=FLAT) >= FLAT:
        return ""
    number = f"all {len(spreads):,}" if len(spreads) > 1 else "the"
    return f"{number} {what} are (nearly) one colour; usual causes: {CAUSES}"


class Visualizer:
    """Gives every number and picture of a training to all sinks.

    A sink whose file cannot be written (a full disk, a lost network share) costs one warning; it is
    tried again at the next occasion. Without sinks, as on the other processes of a distributed run,
    and with a silent console it shows nothing.

    :param picture_seconds: pictures are not wanted more often than that.
    :ivar page: the web page of the run, if there is one.
    """

    def __init__(self, console: Console | None = None, picture_seconds: float = 0.0):
        self.console = console or Console(0, 0, None)
        self.throughput = self.console.throughput
        self.sinks: list[Sink] = [self.console]
        self.history = LossHistory()
        self.total_samples = 0
        self.page: Path | None = None
        self._picture_seconds = picture_seconds
        self._failed: set[str] = set()
        self._started, self._shown_at = time.monotonic(), -math.inf
        self._spreads: list[float] = []  # of the generated pictures of the epoch shown
        self._epoch_shown, self._grey_said = 0, False

    def add(self, make: Callable[[], Sink], package: str) -> None:
        """Give everything to one more sink; a warning where the package it needs is missing."""
        try:
            self.sinks.append(make())
        except ImportError as error:
            self.warn(
                f"the package {package} cannot be imported ({error}); training goes on without it, "
                "install it to see its windows or curves"
            )

    def progress(self, epoch: int, samples_in_epoch: int, total_samples: int) -> None:
        """Call after every iteration: counts samples, redraws the live line, touches no tensor."""
        self.total_samples = total_samples
        self.throughput.count(total_samples)
        self._tell(lambda console: console.progress(epoch, samples_in_epoch), self.console)

    def log_losses(
        self,
        epoch: int,
        samples_in_epoch: int,
        total_samples: int,
        losses: Mapping[str, float],
        lrs: Mapping[str, float],
    ) -> None:
        """Log losses and learning rates (``{"G": …, "D": …}``) of this iteration to all sinks."""
        losses = {name: float(value) for name, value in losses.items()}
        self.history.append("Loss", losses, total_samples)
        self.history.append("LR", lrs, total_samples)
        pace = self.throughput.seconds_per_sample
        record = Losses(epoch, samples_in_epoch, total_samples, losses, lrs, pace)
        self._tell(lambda sink: sink.losses(record))

    def log_metrics(self, metrics: Mapping[str, float], epoch: int, total_samples: int) -> None:
        """Log validation results to all sinks."""
        self.history.append("Metric", metrics, total_samples)
        self._tell(lambda sink: sink.metrics(epoch, total_samples, metrics))
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self.message(f"validation after epoch {epoch}, {total_samples:,} samples: {shown}")

    def seconds(self) -> float:
        """Since it was created."""
        return time.monotonic() - self._started

    def wants_pictures(self, last: bool = False) -> bool:
        """Whether somebody shows pictures, and the last ones are old enough for new ones.

        ``last``: these are the final ones, wanted however old the others are.
        """
        old = time.monotonic() - self._shown_at >= self._picture_seconds
        return any(sink.shows_pictures for sink in self.sinks) and (last or old)

    def show(
        self,
        images: Images,  # of a pair of the last batch
        epoch: int,
        total_samples: int,
        fixed: FixedImages = (),
    ) -> None:
        """Show intermediate results."""
        if epoch != self._epoch_shown:
            self._say_if_grey(total_samples)
            self._spreads, self._epoch_shown = [], epoch
        shown = (images, *(pictures for _, pictures in fixed))
        self._spreads += [spread(p["generated"]) for p in shown if "generated" in p]
        self._tell(lambda sink: sink.pictures(epoch, total_samples, images, fixed))
        self._shown_at = time.monotonic()

    def _say_if_grey(self, total_samples: int) -> None:
        """One warning when all generated pictures of an epoch were one colour."""
        what = f"generated pictures of epoch {self._epoch_shown}"
        sentence = one_colour(self._spreads, what)
        if sentence and not self._grey_said and total_samples >= EARLY:
            self._grey_said = True
            self.warn(sentence)

    def message(self, text: str) -> None:
        """Say something on a line of its own, without breaking the live line."""
        self._tell(lambda console: console.message(text), self.console)

    def warn(self, text: str) -> None:
        """Write a one-line warning to stderr, without breaking the live line."""
        self.console.warn(text)

    def state_dict(self) -> dict[str, Any]:
        """Curves and position, for the checkpoint: plain numbers, strings, lists and dicts."""
        return {"total_samples": self.total_samples, "history": self.history.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint. Call it before the first log of a resumed run."""
        self.history.load_state_dict(state["history"])
        self.rewind(int(state["total_samples"]))

    def rewind(self, total_samples: int) -> None:
        """Training starts from there: logs and pages forget what an earlier run added later."""
        self.total_samples = total_samples
        self._tell(lambda sink: sink.rewind(total_samples))

    def close(self) -> None:
        """Finish the live line, flush the logs, write the last state of the page."""
        self._say_if_grey(self.total_samples)
        self._tell(lambda sink: sink.close())

    def _tell(self, call: Callable[[Any], None], *sinks: Sink) -> None:
        """Call all sinks, or these; a log that cannot be written must not end a training."""
        for sink in sinks or self.sinks:
            try:
                call(sink)
            except OSError as error:
                if sink.name not in self._failed:
                    self._failed.add(sink.name)
                    self.warn(f"the {sink.name} could not be written ({error}); training goes on")
