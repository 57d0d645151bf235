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

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np

from util.show.console import Console, SilentConsole
from util.show.curves import LossHistory
from util.show.sinks import Losses, LossLog, Metrics, Pictures, Sink, TensorBoardLog, Throughput
from util.show.training_page import TrainingPage
from util.show.visdom import VisdomLog, VisdomSettings

T = TypeVar("T")


class Visualizer:
    """Gives every number and picture of a training to all sinks.

    A sink whose file cannot be written (a full disk, a lost network share) costs one warning; it is
    tried again at the next occasion. Create it on the first process only; the others take
    :class:`NullVisualizer`.

    :param run_dir: receives ``loss_log.txt``, ``tensorboard/`` and ``web/``.
    :param title: name of the run, shown on the page.
    :param epochs: planned length, for the estimate of the time left.
    :param visdom: None for no visdom windows.
    :param resume: the run continues an earlier one in the same folder: keep its page.
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
        resume: bool = False,
        stream: TextIO | None = None,
    ):
        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        self._start(Console(epochs, samples_per_epoch, Throughput(), stream))
        self.sinks.append(LossLog(run_dir / "loss_log.txt"))
        if use_tensorboard:
            self._add_optional(lambda: TensorBoardLog(run_dir / "tensorboard"), "tensorboard")
        if use_html:
            page = TrainingPage(run_dir / "web", title, self.history, epochs, resume, self.warn)
            self.sinks.append(page)
        if visdom is not None:
            self._add_optional(lambda: VisdomLog(visdom, self.history, self.warn), "visdom")

    def _start(self, console: Console) -> None:
        self.history = LossHistory()
        self.total_samples = 0
        self.throughput = console.throughput
        self.console = console
        self.sinks: list[Sink] = [console]
        self._failed: set[str] = set()

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
        lrs = {name: float(value) for name, value in lrs.items()}
        self.total_samples = total_samples
        self.history.append("Loss", losses, total_samples)
        self.history.append("LR", lrs, total_samples)
        speed = self.throughput.seconds_per_sample, self.throughput.data_share
        record = Losses(epoch, samples_in_epoch, total_samples, losses, lrs, *speed)
        self._tell(lambda sink: sink.losses(record))

    def log_metrics(self, metrics: Mapping[str, float], epoch: int, total_samples: int) -> None:
        """Log validation results to all sinks."""
        metrics = {name: float(value) for name, value in metrics.items()}
        self.history.append("Metric", metrics, total_samples)
        record = Metrics(epoch, total_samples, metrics)
        self._tell(lambda sink: sink.metrics(record))
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self.message(f"validation after epoch {epoch}, {total_samples:,} samples: {shown}")

    def show(self, images: Mapping[str, np.ndarray], epoch: int, total_samples: int) -> None:
        """Show intermediate results: uint8 arrays (H, W, 3) by name, in this order."""
        record = Pictures(epoch, total_samples, dict(images))
        self._tell(lambda sink: sink.pictures(record))

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
        """Continue from a checkpoint: logs and pages forget what came after it.

        Call it before the first log of a resumed run.
        """
        self.total_samples = int(state["total_samples"])
        self.history.load_state_dict(state["history"])
        self._tell(lambda sink: sink.rewind(self.total_samples))

    def close(self) -> None:
        """Finish the live line, flush the logs, write the last state of the page."""
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
