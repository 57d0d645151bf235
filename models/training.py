"""The life of a training run on disk: exact resume, safe saving, pruning of old states."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from errno import ENOSPC
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from models.base_model import BaseModel
from util.errors import UserError
from util.files import write_atomically
from util.image import resize_linear
from util.metrics.pairs import higher_is_better, score_pairs
from util.run import checkpoint, distributed
from util.run.device import rng_state, seed_generators, set_rng_state
from util.run.folder import RunFolder, prune_states
from util.show.visualizer import Visualizer
from util.tensors import to_uint8

Pair = tuple[np.ndarray, np.ndarray]


class Validator:
    """Scores generated images of a fixed list of pairs and remembers the best value.

    ``batches`` yields batches of the data set; ``generate`` maps a batch to ``fake_target`` (B, 3,
    H, W). ``photograph`` maps the name of a target to its file's pixels at ``size``, so that the
    numbers are those of script/metrics.py on the images of test.py; without it, or where it gives
    None, the target is the loaded image, which has been through the load size.
    """

    def __init__(
        self,
        batches: Iterable[dict[str, Any]],
        generate: Callable[[dict[str, Any]], Any],
        size: tuple[int, int],  # (h, w) the images are compared at
        metrics: tuple[str, ...] = ("psnr", "ssim"),
        best_metric: str = "psnr",
        protocol: str = "standard",
        photograph: Callable[[str], np.ndarray | None] = lambda name: None,
    ):
        self.batches, self.generate, self.size = batches, generate, tuple(size)
        self.photograph = photograph
        self.metrics, self.best_metric, self.protocol = metrics, best_metric, protocol
        self.upward = higher_is_better(best_metric, protocol)
        self.best: float | None = None

    def score(self) -> dict[str, float]:
        """Mean of each metric over all pairs."""
        return score_pairs(self._pairs(), self.protocol, self.metrics)

    def _pairs(self) -> Iterator[Pair]:
        for batch in self.batches:
            fakes = to_uint8(self.generate(batch))
            for i, fake in enumerate(fakes):
                truth = self.photograph(batch["target_name"][i])
                if truth is None:
                    truth = batch["target_image"][i].permute(1, 2, 0).contiguous().numpy()
                yield resize_linear(truth, self.size), resize_linear(fake, self.size)

    def is_best(self, scores: dict[str, float]) -> bool:
        """True when ``scores`` beat everything before; remembers the value."""
        value = scores[self.best_metric]
        if not np.isfinite(value):
            return False
        if self.best is None or (value > self.best if self.upward else value < self.best):
            self.best = value
            return True
        return False


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

    def state_dict(self) -> dict[str, int]:
        """Plain values, for the checkpoint."""
        return asdict(self)


KEPT_DUMPS = 5  # batches with a gradient that is not finite, saved for reproduction
MAX_SKIPPED = 100  # consecutive steps without a finite gradient; then even --on_nan skip stops


class Resumable(Protocol):
    """What a run needs of a model."""

    device: Any
    notes: list[str]
    networks: Mapping[str, torch.nn.Module]
    ema: Mapping[str, Mapping[str, torch.Tensor]]

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], origin: str) -> bool: ...
    def save_networks(self, which: str) -> None: ...
    def load_networks(self, which: str) -> None: ...


class TrainingRun:
    """Saves and resumes ``<folder>/<which>_state.pth`` and the published network files beside it.

    A disk that refuses costs a warning and that save, never the run or an older file.
    """

    def __init__(
        self,
        model: Resumable,
        folder: RunFolder,
        visualizer: Visualizer,
        validator: Validator | None = None,  # on the main process, when there is validation
        keep_last: int = 2,  # numbered states kept for resuming; network files are never pruned
        end: tuple[float, int] = (float("inf"), 0),  # last epoch, and the samples of one
    ):
        self.model, self.claim, self.folder, self.keep_last = model, folder, folder.path, keep_last
        self.visualizer, self.warn = visualizer, visualizer.warn
        self.validator = validator
        self.progress = Progress()
        self.extra: dict[str, Any] = {}  # plain values of others, saved with the state
        self.end = end
        self.skipped = 0  # consecutive steps left out because a gradient was not finite
        self._before: Mapping[str, Any] = {}
        self._warned = False

    def at_end(self) -> bool:
        """True after the very last step of the run."""
        return (self.progress.epoch, self.progress.samples) >= self.end

    def due(self, frequency: int) -> bool:
        """True when the last step crossed a multiple of ``frequency`` samples or is the very
        last."""
        return self.progress.due(frequency) or self.at_end()

    def state_path(self, which: str) -> Path:
        """State file of checkpoint ``which``."""
        return self.folder / f"{which}_state.pth"

    def start(self, which: str, save_options: Callable[[], None]) -> None:
        """Resume checkpoint ``which`` if the folder was claimed for that, else start anew.

        ``save_options`` is called on the main process once nothing can be refused any more.
        """
        resumed = self.claim.resume and self.resume(which)
        if not resumed and distributed.rank():  # processes share their weights, not their noise
            seed_generators(torch.initial_seed() + distributed.rank())
        if distributed.is_main():
            self._check_space_for_a_run()
            self.claim.clear()
            if not self.claim.resume:  # a run that died before its first save leaves a log
                self.visualizer.rewind(0)
            save_options()
        for note in self.model.notes:
            self.visualizer.message(note)

    def resume(self, which: str) -> bool:
        """Load checkpoint ``which``; False when training starts at epoch 1 on networks alone."""
        path = self.state_path(which)
        if not path.is_file() and any(self.folder.glob(f"{which}_net_*")):
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
            if not self.model.load_state_dict(state["model"], str(path)):
                # another stage: its count of samples goes on, so that logs and pictures do not mix
                self.progress = Progress(total=saved.total, previous=saved.total)
                return False
            self.progress, self.extra = saved, state["extra"]
            self._restore_generators(state.get("generators", []))
            self.visualizer.load_state_dict(self.extra["visualizer"])
        except (KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path} is not a state that {type(self.model).__name__} can go on from "
                f"({reason}); check --which_epoch and --model"
            ) from error
        return True

    def _restore_generators(self, states: list[dict[str, Any]]) -> None:
        """Random numbers of the other processes; new ones where there were fewer processes."""
        rank = distributed.rank()
        if 0 < rank < len(states):
            set_rng_state(states[rank])
        elif rank:
            seed_generators(torch.initial_seed() + self.progress.total + rank)

    def save(self, *labels: str) -> bool:
        """Write state and networks under every label ("latest", 12); False when the disk refused.

        Every process must call it; only the main one writes and knows whether that succeeded.
        """
        generators = distributed.gather(rng_state())
        if not distributed.is_main():
            return True
        self.extra["visualizer"] = self.visualizer.state_dict()
        return self._guarded(lambda: self._write(labels, generators), ", ".join(labels))

    def _write(self, labels: tuple[str, ...], generators: list[dict[str, Any]]) -> None:
        self._check_space()
        state = {
            "model": self.model.state_dict(),
            "progress": self.progress.state_dict(),
            "extra": self.extra,
            "generators": generators,
        }
        for label in labels:
            checkpoint.save(self.state_path(label), state)
            self.model.save_networks(label)
        text = f"{self.progress.epoch}\n{self.progress.samples}\n"
        write_atomically(self.folder / "iter.txt", text.encode())
        prune_states(self.folder, self.keep_last)

    def _guarded(self, write: Callable[[], None], what: str) -> bool:
        """Run ``write``; False, after one warning, when the disk refuses."""
        try:
            write()
        except OSError as error:
            if not self._warned:
                self.warn(
                    f"checkpoint {what} was not saved ({error.strerror or error}); the last good "
                    f"one stays and training goes on: free space in {self.folder}, if it is there"
                )
            self._warned = True
            return False
        self._warned = False
        return True

    def log(self, losses: Mapping[str, Any]) -> None:
        """Give the losses of the last step to all logs."""
        at = self.progress
        rates = self.model.learning_rates()
        self.visualizer.log_losses(at.epoch, at.samples, at.total, losses, rates)

    def validate(self) -> None:
        """Log the scores of the model as it is now; the best so far is kept as ``best``."""
        validator = self.validator
        if validator is not None:
            validator.best = self.extra.get("best")
            with self.model.evaluating():
                scores = validator.score()
            self.visualizer.log_metrics(scores, self.progress.epoch, self.progress.total)
            if validator.is_best(scores) and self._guarded(
                lambda: self.model.save_networks("best"), "best"
            ):
                self.extra["best"] = validator.best
                shown = f"{validator.best_metric} {validator.best:.4f}"
                self.visualizer.message(f"best so far: {shown}, kept as best_net_*.pth")
        distributed.barrier()

    def watch(self, batch: Mapping[str, Any], bad: str | None, on_nan: str) -> bool:
        """Report a step whose gradient was not finite; True when the run must stop.

        ``bad`` is the answer of the model's stepper, which on a GPU is about the batch before.
        """
        late = self.model.device.type == "cuda"
        suspect, self._before = (self._before if late else batch), batch
        if bad is None:
            self.skipped = 0
            return False
        self.skipped += 1
        stop = on_nan == "stop" or self.skipped >= MAX_SKIPPED
        names = ", ".join(
            f"{a} to {b}"
            for a, b in zip(suspect["source_name"], suspect["target_name"], strict=True)
        )
        self.warn(
            f"the gradient of {bad} is not finite after {self.progress.total:,} samples; the step "
            f"was left out{' and training stops' if stop else ''}. Its pairs: {names}"
            f"{self._dump({'network': bad, **suspect})}"
        )
        return stop

    def _dump(self, content: Mapping[str, Any]) -> str:
        """Save a batch for reproduction, unless there are enough; says where."""
        if len(list(self.folder.glob("not_finite_*.pth"))) >= KEPT_DUMPS:
            return ""
        process = f"_process{distributed.rank()}" if distributed.rank() else ""
        path = self.folder / f"not_finite_{self.progress.total}{process}.pth"
        try:
            checkpoint.save(path, dict(content))
        except OSError as error:
            return f" (the batch could not be saved: {error.strerror or error})"
        return f"; the batch is in {path}"

    def _check_space(self) -> None:
        """Refuse to start a save that cannot fit beside the file it replaces."""
        newest = self.state_path("latest")
        needed = newest.stat().st_size if newest.is_file() else 0
        if shutil.disk_usage(self.folder).free < 1.1 * needed:
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(newest))

    def _check_space_for_a_run(self) -> None:
        """Refuse to start a run whose checkpoints cannot fit: state, networks and the next state.

        A state holds every network with the two moments of Adam.
        """
        networks = sum(_bytes(n.state_dict()) for n in self.model.networks.values())
        averages = sum(_bytes(state) for state in self.model.ema.values())
        state = 3 * networks + averages
        first = not self.state_path("latest").is_file()
        needed = state + (state + networks + averages if first else 0)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise UserError(
                f"{self.folder} has {free / 2**20:,.0f} MiB left, but the checkpoints of this run "
                f"need {needed / 2**20:,.0f} MiB; free space or change --checkpoints_dir"
            )


def _bytes(state: Mapping[str, torch.Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in state.values())


def create_validator(opt: Namespace, model: BaseModel, dataset: Any) -> Validator | None:
    """Scores ``--val_pairs`` pairs spread evenly over the list of ``dataset``; None without
    one."""
    if dataset is None:
        return None
    count = min(opt.val_pairs, len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    loader = DataLoader(Subset(dataset, chosen), batch_size=opt.batchSize)
    metrics = tuple(name.strip() for name in opt.val_metrics.split(",") if name.strip())
    if opt.best_metric not in metrics:
        raise UserError(
            f"--best_metric {opt.best_metric} is not among --val_metrics {opt.val_metrics}; add "
            f"it there"
        )

    def generate(batch):
        return model.generate(model.prepare(batch))["fake_target"]

    return Validator(
        loader,
        generate,
        dataset.annotation_size,
        metrics,
        opt.best_metric,
        photograph=dataset.photograph,
    )
