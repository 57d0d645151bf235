"""What a training run shows: on its console, in logs, in windows and on a web page."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from util.show.console import Console, OneColour, Throughput
from util.show.sinks import Images, Losses, LossHistory, Metrics, Pictures, Sink

T = TypeVar("T")
EARLY = 2000  # samples; before, pictures of one colour are nothing to worry about


class Visualizer:
    """Gives every number and picture of a training to all sinks.

    A sink whose file cannot be written (a full disk, a lost network share) costs one warning; it is
    tried again at the next occasion. Create it on the first process only; the others take
    :class:`NullVisualizer`.

    :param picture_seconds: pictures are not wanted more often than that.
    :ivar page: the web page of the run, if there is one.
    """

    def __init__(self, console: Console, picture_seconds: float = 0.0):
        self.console, self.throughput = console, console.throughput
        self.sinks: list[Sink] = [console]
        self.history = LossHistory()
        self.total_samples = 0
        self.page: Path | None = None
        self._picture_seconds = picture_seconds
        self._failed: set[str] = set()
        self._started, self._shown_at = time.monotonic(), -math.inf
        self._colours, self._epoch_shown, self._grey_said = OneColour(), 0, False

    def add(self, make: Callable[[], Sink], package: str) -> None:
        """Give everything to one more sink; a warning where the package it needs is missing."""
        try:
            self.sinks.append(make())
        except ImportError as error:
            self.warn(
                f"the package {package} cannot be imported ({error}); training goes on without it, "
                "install it to see its windows or curves"
            )

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Iterate over a loader and measure how long training waits for it."""
        return self.throughput.timed(batches)

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
        self.total_samples = total_samples
        self.history.append("Loss", losses, total_samples)
        self.history.append("LR", lrs, total_samples)
        pace = self.throughput.seconds_per_sample
        record = Losses(epoch, samples_in_epoch, total_samples, losses, lrs, pace)
        self._tell(lambda sink: sink.losses(record))

    def log_metrics(self, metrics: Mapping[str, float], epoch: int, total_samples: int) -> None:
        """Log validation results to all sinks."""
        self.history.append("Metric", metrics, total_samples)
        self._tell(lambda sink: sink.metrics(Metrics(epoch, total_samples, metrics)))
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
        fixed: Sequence[tuple[str, Images]] = (),  # name and pictures of pairs that stay the same
    ) -> None:
        """Show intermediate results."""
        if epoch != self._epoch_shown:
            self._say_if_grey(total_samples)
            self._colours, self._epoch_shown = OneColour(), epoch
        for pictures in (images, *(one for _, one in fixed)):
            if "generated" in pictures:
                self._colours.see(pictures["generated"])
        self._tell(lambda sink: sink.pictures(Pictures(epoch, total_samples, images, fixed)))
        self._shown_at = time.monotonic()

    def _say_if_grey(self, total_samples: int) -> None:
        """One warning when all generated pictures of an epoch were one colour."""
        if self._colours.found and not self._grey_said and total_samples >= EARLY:
            self._grey_said = True
            self.warn(self._colours.sentence(f"generated pictures of epoch {self._epoch_shown}"))

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


class NullVisualizer(Visualizer):
    """For the other processes of a distributed run: same methods, no output, no files."""

    def __init__(self) -> None:
        super().__init__(Console(0, 0, Throughput(), None))
