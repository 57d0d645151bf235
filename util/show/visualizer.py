"""What a training run shows: console, loss_log.txt, TensorBoard, visdom and a web page.

Each of them is a small sink; none of them can stop a training::

    visualizer = Visualizer(run_dir, "dptn", epochs=200, samples_per_epoch=len(dataset))
    for batch in visualizer.timed(loader):
        ...
        visualizer.progress(epoch, samples_in_epoch, total_samples)  # every iteration, cheap
        visualizer.log_losses(epoch, samples_in_epoch, total_samples, losses, lrs)  # now and then
        visualizer.show(pictures, epoch, total_samples)
    visualizer.close()
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from util.show.console import Console, OneColour, SilentConsole, Throughput
from util.show.sinks import (
    Images,
    Losses,
    LossHistory,
    LossLog,
    Metrics,
    Pictures,
    Sink,
    TensorBoardLog,
)
from util.show.training_page import TrainingPage
from util.show.visdom import VisdomLog, VisdomSettings

T = TypeVar("T")
EARLY = 2000  # samples; before, pictures of one colour are nothing to worry about


class Visualizer:
    """Gives every number and picture of a training to all sinks.

    A sink whose file cannot be written (a full disk, a lost network share) costs one warning; it is
    tried again at the next occasion. Create it on the first process only; the others take
    :class:`NullVisualizer`.

    :param run_dir: receives ``loss_log.txt``, ``tensorboard/`` and ``web/``.
    :param title: name of the run, shown on the page.
    :param epochs: planned length, for the estimate of the time left.
    :param settings: of the run, by name, for the page.
    :param meanings: what each loss measures, by its name, for the page.
    :param visdom: None for no visdom windows.
    :param picture_seconds: pictures are not wanted more often than that.
    :param stream: where progress is written; stdout by default.
    """

    def __init__(
        self,
        run_dir: str | Path,
        title: str,
        *,
        epochs: int,
        samples_per_epoch: int,
        use_html: bool = True,
        use_tensorboard: bool = True,
        visdom: VisdomSettings | None = None,
        settings: Mapping[str, object] | None = None,
        meanings: Mapping[str, str] | None = None,
        picture_seconds: float = 0.0,
        stream: TextIO | None = None,
    ):
        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        self._start(Console(epochs, samples_per_epoch, Throughput(), stream))
        self._picture_seconds = picture_seconds
        self._shows_pictures = use_html or visdom is not None
        self.sinks.append(LossLog(run_dir / "loss_log.txt"))
        if use_tensorboard:
            self._add_optional(lambda: TensorBoardLog(run_dir / "tensorboard"), "tensorboard")
        if use_html:
            page = TrainingPage(
                run_dir / "web", title, self.history, epochs, settings or {}, meanings or {}
            )
            self.page = page.path
            if page.problem is not None:
                self.warn(page.problem)
            self.sinks.append(page)
        if visdom is not None:
            self._add_optional(lambda: VisdomLog(visdom, self.history, self.console.warn), "visdom")

    def _start(self, console: Console) -> None:
        self.history = LossHistory()
        self.total_samples = 0
        self.console, self.throughput = console, console.throughput
        self.sinks: list[Sink] = [console]
        self.page: Path | None = None
        self._failed: set[str] = set()
        self._started, self._shown_at = time.monotonic(), -math.inf
        self._shows_pictures = self._postponed = self._grey_said = False
        self._colours, self._epoch_shown = OneColour(), 0

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Iterate over a loader and measure how long training waits for it."""
        return self.throughput.timed(batches)

    def progress(self, epoch: int, samples_in_epoch: int, total_samples: int) -> None:
        """Call after every iteration: counts samples, redraws the live line, touches no tensor."""
        self.total_samples = total_samples
        self.throughput.count(total_samples)
        self._guard(
            self.console, lambda: self.console.progress(epoch, samples_in_epoch, total_samples)
        )

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
        speed = self.throughput.seconds_per_sample, self.throughput.data_share
        record = Losses(epoch, samples_in_epoch, total_samples, losses, lrs, *speed)
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
        if not self._shows_pictures:
            return False
        if last or time.monotonic() - self._shown_at >= self._picture_seconds:
            return True
        if not self._postponed:
            self._postponed = True
            self.message(
                f"new pictures would come faster than every {self._picture_seconds:g} s "
                "(--display_seconds): those between are left out"
            )
        return False

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
        self._guard(self.console, lambda: self.console.message(text))

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

    def _add_optional(self, make: Callable[[], Sink], package: str) -> None:
        try:
            self.sinks.append(make())
        except ImportError as error:
            self.warn(
                f"the package {package} cannot be imported ({error}); training goes on without it, "
                "install it to see its windows or curves"
            )

    def _tell(self, call: Callable[[Sink], None]) -> None:
        for sink in self.sinks:
            self._guard(sink, lambda sink=sink: call(sink))

    def _guard(self, sink: Sink, action: Callable[[], None]) -> None:
        """Run one action of a sink; a log that cannot be written must not end a training."""
        try:
            action()
        except OSError as error:
            if sink.name not in self._failed:
                self._failed.add(sink.name)
                self.warn(f"the {sink.name} could not be written ({error}); training goes on")


class NullVisualizer(Visualizer):
    """For the other processes of a distributed run: same methods, no output, no files."""

    def __init__(self) -> None:
        self._start(SilentConsole())
