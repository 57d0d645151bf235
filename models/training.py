"""The life of a training run: exact resume, validation, safe saving, steps that failed."""

import os
import shutil
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from errno import ENOSPC
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from models.base_model import BaseModel
from models.optim import fresh_statistics
from util.errors import UserError
from util.files import write_atomically
from util.image import resize_linear
from util.metrics.pairs import higher_is_better, score_pairs
from util.run import checkpoint, distributed
from util.run.device import rng_state, seed_generators, set_rng_state
from util.run.folder import RunFolder, prune_states
from util.show.visualizer import Visualizer
from util.tensors import to_uint8

KEPT_DUMPS = 5  # batches with a gradient that is not finite, saved for reproduction
MAX_SKIPPED = 100  # consecutive steps without a finite gradient; then even --on_nan skip stops
SAVE_SECONDS = 60.0  # by default latest is saved no more often, however fast the machine is
PROTOCOL = "standard"  # of validation
# What Python and PyTorch say to a state whose values are not what they were when it was saved.
_WRONG_CONTENT = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RuntimeError,
)  # fmt: skip


# ---- validation --------------------------------------------------------------------------------


class Validator:
    """Scores generated images of ``--val_pairs`` pairs spread evenly over the list of ``dataset``.

    They are compared at the annotation size with the file of the target, ``dataset.photograph``, so
    that the numbers are those of script/metrics.py on the images of test.py; where that is None,
    with the loaded image, which has been through the load size. ``training``: the data set whose
    pictures give the statistics of batch norms.
    """

    def __init__(self, opt: Namespace, model: BaseModel, dataset: Any, training: Any):
        self.metrics = tuple(name.strip() for name in opt.val_metrics.split(",") if name.strip())
        if opt.best_metric not in self.metrics:
            raise UserError(
                f"--best_metric {opt.best_metric} is not among --val_metrics {opt.val_metrics}; "
                "add it there"
            )
        self.model, self.dataset, self.best_metric = model, dataset, opt.best_metric
        self.upward = higher_is_better(opt.best_metric, PROTOCOL)
        self.batches = _spread(opt.val_pairs, dataset, opt.batchSize)
        self._of_norms = _spread(opt.bn_batches * opt.batchSize, training, opt.batchSize)
        self.fresh_saves = opt.bn_in_saves  # network files are written with these statistics, too

    def statistics(self) -> AbstractContextManager:
        """Region in which the model is judged: with fresh statistics of its batch norms."""
        return fresh_statistics(self.model, self._of_norms)

    def score(self) -> dict[str, float]:
        """Mean of each metric over all pairs."""
        return score_pairs(self._pairs(), PROTOCOL, self.metrics, device=self.model.device)

    def _pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        size = self.dataset.annotation_size
        for batch in self.batches:
            fakes = self.model.generate(self.model.prepare(batch))["fake_target"]
            for i, fake in enumerate(to_uint8(fakes)):
                truth = self.dataset.photograph(batch["target_name"][i])
                if truth is None:
                    truth = batch["target_image"][i].permute(1, 2, 0).contiguous().numpy()
                yield resize_linear(truth, size), resize_linear(fake, size)

    def is_better(self, scores: Mapping[str, float], best: float | None) -> bool:
        """True when ``scores`` beat the best value so far; one that is not finite never does."""
        value = scores[self.best_metric]
        better = best is None or (value > best if self.upward else value < best)
        return bool(np.isfinite(value) and better)


def _spread(count: int, dataset: Any, batch_size: int) -> DataLoader:
    """``count`` samples, evenly spread, first and last included."""
    rows = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return DataLoader(Subset(dataset, rows.tolist()), batch_size=batch_size)


# ---- the run -----------------------------------------------------------------------------------


@dataclass
class Progress:
    """Position of a run; counts are samples over all processes, as in the published logs."""

    epoch: int = 1  # current epoch, from 1
    samples: int = 0  # done in this epoch
    total: int = 0  # done in all
    previous: int = 0  # total before the last step

    def advance(self, samples: int) -> None:
        """Count one training step."""
        self.previous = self.total
        self.samples += samples
        self.total += samples

    def next_epoch(self) -> int:
        """Start the next epoch; returns the one that is finished."""
        self.epoch, self.samples = self.epoch + 1, 0
        return self.epoch - 1

    def due(self, frequency: int) -> bool:
        """True when the last step crossed a multiple of ``frequency`` samples."""
        return self.total // frequency > self.previous // frequency

    def check(self) -> None:
        """Refuse (ValueError) a position that no run can have."""
        for name, value in asdict(self).items():
            if type(value) is not int or value < (name == "epoch"):
                raise ValueError(f"{name} is {value!r}")


class TrainingRun:
    """Saves and resumes ``<folder>/<which>_state.pth`` and the published network files beside it.

    A disk that refuses costs a warning and that save, never the run or an older file.
    """

    def __init__(
        self,
        model: BaseModel,
        folder: RunFolder,
        visualizer: Visualizer,
        validator: Validator | None = None,  # on the main process, when there is validation
        keep_last: int = 2,  # numbered states kept for resuming; network files are never pruned
        end: tuple[float, int] = (float("inf"), 0),  # last epoch, and the samples of one
    ):
        self.model, self.folder, self.path, self.keep_last = model, folder, folder.path, keep_last
        self.visualizer, self.warn = visualizer, visualizer.warn
        self.validator, self.end = validator, end
        self.progress = Progress()
        self.extra: dict[str, Any] = {}  # plain values of others, saved with the state
        self.skipped = 0  # consecutive steps left out because a gradient was not finite
        self._before: Mapping[str, Any] = {}
        self._saved = time.monotonic()
        self._warned = False

    def at_end(self) -> bool:
        """True after the very last step of the run."""
        return (self.progress.epoch, self.progress.samples) >= self.end

    def due(self, frequency: int) -> bool:
        """True when the last step crossed a multiple of ``frequency`` samples or was the last."""
        return self.progress.due(frequency) or self.at_end()

    def save_due(self, frequency: int | None, usual: int) -> bool:
        """Whether latest is saved after this step: every ``frequency`` samples.

        Without a frequency it is every ``usual`` samples, but not before SAVE_SECONDS have gone by.
        Every process must call it.
        """
        if not self.progress.due(frequency or usual):
            return False
        late = frequency is not None or time.monotonic() - self._saved >= SAVE_SECONDS
        return distributed.any_process(late)

    def log(self, losses: Mapping[str, Any]) -> None:
        """Give the losses of the last step to all logs."""
        at, rates = self.progress, self.model.learning_rates()
        self.visualizer.log_losses(at.epoch, at.samples, at.total, losses, rates)

    def validate(self) -> None:
        """Log the scores of the model as it is now; the best so far is kept as ``best``."""
        judge = self.validator
        if judge is not None:
            with self.model.evaluating(), judge.statistics():
                scores = judge.score()
                self.visualizer.log_metrics(scores, self.progress.epoch, self.progress.total)
                better = judge.is_better(scores, self.extra.get("best"))
                if better and self._guarded(lambda: self.model.save_networks("best"), "best"):
                    best = self.extra["best"] = scores[judge.best_metric]
                    self.visualizer.message(
                        f"best so far: {judge.best_metric} {best:.4f}, kept as best_net_*.pth"
                    )
        distributed.barrier()

    # ---- start and resume ------------------------------------------------------------------

    def start(self, which: str, save_options: Callable[[], None]) -> None:
        """Resume checkpoint ``which`` if the folder was claimed for that, else start anew.

        ``save_options`` is called on the main process once nothing can be refused any more.
        """
        resumed = self.folder.resume and self.resume(which)
        if not resumed and distributed.rank():  # processes share their weights, not their noise
            seed_generators(torch.initial_seed() + distributed.rank())
        if distributed.is_main():
            self._check_space_for_a_run()
            self.folder.clear()
            if not self.folder.resume:  # a run that died before its first save leaves a log
                self.visualizer.rewind(0)
            save_options()
        if self.folder.begins_anew:
            self.visualizer.message(
                f"{self.path} holds no checkpoint to continue: training starts anew"
            )
        for note in self.model.notes:
            self.visualizer.message(note)

    def resume(self, which: str) -> bool:
        """Load checkpoint ``which``; False when training starts at epoch 1 on networks alone."""
        path = self.state_path(which)
        if not path.is_file() and any(self.path.glob(f"{which}_net*")):
            self.model.load_networks(which)
            self.warn(
                f"{path} does not exist: only the networks of {which} are loaded; optimizers and "
                "the schedule start anew"
            )
            return False
        state = checkpoint.load(path)
        if not isinstance(state, dict) or not {"model", "progress", "extra"} <= set(state):
            raise UserError(f"{path} is not the state of a training run; check --which_epoch")
        try:
            saved = Progress(**state["progress"])
            saved.check()
            if not self.model.load_state_dict(state["model"], str(path)):
                self.progress = Progress(total=saved.total, previous=saved.total)
                return False
            self.progress, self.extra = saved, state["extra"]
            self._restore_generators(state.get("generators", []))
            self.visualizer.load_state_dict(self.extra["visualizer"])
        except _WRONG_CONTENT as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path} is not a state that {type(self.model).__name__} can go on from "
                f"({reason}); check --which_epoch and --model"
            ) from error
        if which == "latest" and distributed.is_main():
            # A kill may have cut off the save: state files come first, all else follows from them.
            labels = self.extra.get("labels", ["latest"])
            self._guarded(lambda: self._write(labels, state, complete=True), "latest")
        return True

    def _restore_generators(self, states: list[dict[str, Any]]) -> None:
        """Random numbers of the other processes; new ones where there were fewer processes."""
        rank = distributed.rank()
        if 0 < rank < len(states):
            set_rng_state(states[rank])
        elif rank:
            seed_generators(torch.initial_seed() + self.progress.total + rank)

    # ---- save ------------------------------------------------------------------------------

    def state_path(self, which: str) -> Path:
        """State file of checkpoint ``which``."""
        return self.path / f"{which}_state.pth"

    def save(self, *labels: str) -> bool:
        """Write state and networks under every label ("latest", 12); False when the disk refused.

        Every process must call it; only the main one writes and knows whether that succeeded.
        """
        distributed.check_replicas(self.model.networks)
        self._saved = time.monotonic()
        generators = distributed.gather(rng_state())
        if not distributed.is_main():
            return True
        self.extra["visualizer"] = self.visualizer.state_dict()
        self.extra["labels"] = list(labels)
        state = {
            "model": self.model.state_dict(),
            "progress": asdict(self.progress),
            "extra": self.extra,
            "generators": generators,
        }
        return self._guarded(lambda: self._write(labels, state), ", ".join(labels))

    def _write(self, labels: Iterable[str], state: dict[str, Any], complete: bool = False) -> None:
        """State and networks under every label; ``complete``: state files that exist stay."""
        newest, fresh = self.state_path("latest"), self.validator and self.validator.fresh_saves
        needed = newest.stat().st_size if newest.is_file() and not complete else 0
        if shutil.disk_usage(self.path).free < 1.1 * needed:  # beside the file it replaces
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(newest))
        for label in labels:
            if not (complete and self.state_path(label).is_file()):
                checkpoint.save(self.state_path(label), state)
            with self.validator.statistics() if fresh else nullcontext():
                self.model.save_networks(label)
        text = f"{self.progress.epoch}\n{self.progress.samples}\n"
        write_atomically(self.path / "iter.txt", text.encode())
        prune_states(self.path, self.keep_last)

    def _guarded(self, write: Callable[[], None], what: str) -> bool:
        """Run ``write``; False, after one warning, when the disk refuses."""
        try:
            write()
        except OSError as error:
            if not self._warned:
                self.warn(
                    f"checkpoint {what} was not saved ({error.strerror or error}); the last good "
                    f"one stays and training goes on: free space in {self.path}, if it is there"
                )
            self._warned = True
            return False
        self._warned = False
        return True

    def _check_space_for_a_run(self) -> None:
        """Refuse to start a run whose checkpoints cannot fit: state, networks and the next state.

        A state holds every network with the two moments of Adam.
        """
        networks = sum(_bytes(n.state_dict()) for n in self.model.networks.values())
        averages = sum(_bytes(state) for state in self.model.ema.values())
        state = 3 * networks + averages
        first = not self.state_path("latest").is_file()
        needed = state + (state + networks + averages if first else 0)
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise UserError(
                f"{self.path} has {free / 2**20:,.0f} MiB left, but the checkpoints of this run "
                f"need {needed / 2**20:,.0f} MiB; free space or change --checkpoints_dir"
            )

    # ---- steps that failed -----------------------------------------------------------------

    def watch(self, batch: Mapping[str, Any], bad: str | None, on_nan: str) -> bool:
        """Report a step whose gradient was not finite; True when the run must stop.

        ``bad`` is the answer of the model's stepper, which on a GPU is about the batch before; the
        very last step of the run is waited for.
        """
        stepper, at = self.model.stepper, self.progress
        if not stepper.late:
            return self._judge(batch, bad, at.total, on_nan)
        suspect, self._before = self._before, batch
        stop = bool(suspect) and self._judge(suspect, bad, at.previous, on_nan)
        if self.at_end() and not stop:
            stop = self._judge(batch, stepper.not_finite(), at.total, on_nan)
        return stop

    def _judge(self, batch: Mapping[str, Any], bad: str | None, samples: int, on_nan: str) -> bool:
        """The same of the step that ended after ``samples`` samples."""
        if bad is None:
            self.skipped = 0
            return False
        self.skipped += 1
        stop = on_nan == "stop" or self.skipped >= MAX_SKIPPED
        names = ", ".join(
            f"{a} to {b}" for a, b in zip(batch["source_name"], batch["target_name"], strict=True)
        )
        self.warn(
            f"the gradient of {bad} is not finite after {samples:,} samples; the step was left out"
            f"{' and training stops' if stop else ''}. Its pairs: {names}"
            f"{self._dump({'network': bad, **batch}, samples)}"
        )
        return stop

    def _dump(self, content: dict[str, Any], samples: int) -> str:
        """Save a batch for reproduction, unless there are enough; says where."""
        if len(list(self.path.glob("not_finite_*.pth"))) >= KEPT_DUMPS:
            return ""
        process = f"_process{distributed.rank()}" if distributed.rank() else ""
        path = self.path / f"not_finite_{samples}{process}.pth"
        try:
            checkpoint.save(path, content)
        except OSError as error:
            return f" (the batch could not be saved: {error.strerror or error})"
        return f"; the batch is in {path}"


def _bytes(state: Mapping[str, torch.Tensor]) -> int:
    return sum(value.nbytes for value in state.values())
