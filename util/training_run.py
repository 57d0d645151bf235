"""The life of a training run on disk: exact resume, safe saving, pruning of old states."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from util import checkpoint, distributed
from util.errors import UserError
from util.metrics.validation import Validator
from util.progress import Progress
from util.visualizer import Visualizer

KEPT_DUMPS = 5  # batches with a gradient that is not finite, saved for reproduction
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


class Resumable(Protocol):
    """What a run needs of a model."""

    device: Any
    notes: list[str]

    notes: list[str]

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], origin: str) -> bool: ...
    def save_networks(self, which: str) -> None: ...
    def load_networks(self, which: str) -> None: ...


class TrainingRun:
    """Saves and resumes ``<folder>/<which>_state.pth`` and the published network files beside it.

    A full disk costs a warning and that save, never the run or an older file.
    """

    def __init__(
        self,
        model: Resumable,
        folder: str | Path,
        visualizer: Visualizer,
        keep_last: int = 2,  # numbered states kept for resuming; network files are never pruned
    ):
        self.model, self.folder, self.keep_last = model, Path(folder), keep_last
        self.visualizer, self.warn = visualizer, visualizer.warn
        self.progress = Progress()
        self.extra: dict[str, Any] = {}  # plain values of others, saved with the state (best metric)
        self.skipped = 0  # steps left out because a gradient was not finite
        self._before: Mapping[str, Any] = {}
        self._warned = False

    def state_path(self, which: str) -> Path:
        """State file of checkpoint ``which``."""
        return self.folder / f"{which}_state.pth"

    def start(self, resume: bool, which: str, overwrite: bool) -> None:
        """Resume ``which``, or make sure that a new run does not write over an older one."""
        if resume:
            if self.resume(which):
                self.visualizer.load_state_dict(self.extra["visualizer"])
        elif self.state_path("latest").is_file() and not overwrite:
            raise UserError(
                f"{self.folder} already holds a training run; pass --continue_train to resume it, "
                "another --name, or --overwrite to replace it"
            )
        for note in self.model.notes:
            self.visualizer.message(note)

    def resume(self, which: str) -> bool:
        """Load checkpoint ``which``; False when only networks were taken and training starts at epoch 1."""
        path = self.state_path(which)
        if not path.is_file() and any(self.folder.glob(f"{which}_net_*.pth")):
            self.model.load_networks(which)
            self.warn(
                f"{path} does not exist: only the networks of {which} are loaded; optimizers and the "
                "schedule start anew"
            )
            return False
        state = checkpoint.load(path)
        if not isinstance(state, dict) or not {"model", "progress", "extra"} <= set(state):
            raise UserError(f"{path} is not the state of a training run; check --which_epoch")
        if not self.model.load_state_dict(state["model"], str(path)):
            return False
        self.progress = Progress(**state["progress"])
        self.extra = state["extra"]
        return True

    def save(self, *labels: str) -> bool:
        """Write state and networks under every label ("latest", 12); False when the disk refused.

        Only the main process writes; the others return at once.
        """
        if not distributed.is_main():
            return True
        self.extra["visualizer"] = self.visualizer.state_dict()
        return self._guarded(lambda: self._write(labels), ", ".join(labels))

    def _write(self, labels: tuple[str, ...]) -> None:
        self._check_space()
        state = {
            "model": self.model.state_dict(),
            "progress": self.progress.state_dict(),
            "extra": self.extra,
        }
        for label in labels:
            checkpoint.save(self.state_path(label), state)
            self.model.save_networks(label)
        text = f"{self.progress.epoch}\n{self.progress.samples}\n"
        checkpoint.write_atomically(self.folder / "iter.txt", text.encode())
        self._prune()

    def _guarded(self, write: Callable[[], None], what: str) -> bool:
        """Run ``write``; False, after one warning, when the disk refuses."""
        try:
            write()
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            if not self._warned:
                self.warn(
                    f"checkpoint {what} was not saved ({error.strerror}); the last good one "
                    f"stays and training goes on: free space in {self.folder}"
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

    def validate(self, validator: Validator | None) -> None:
        """Log the scores of the model as it is now and keep it as ``best`` if they are the best so far."""
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
            return False
        path = self.folder / f"not_finite_{self.progress.total}.pth"
        self.skipped += 1
        if self.skipped <= KEPT_DUMPS:
            checkpoint.save(path, {"network": bad, **suspect})
        names = ", ".join(
            f"{a} to {b}"
            for a, b in zip(suspect["source_name"], suspect["target_name"], strict=True)
        )
        stop = on_nan == "stop"
        self.warn(
            f"the gradient of {bad} is not finite after {self.progress.total:,} samples; the step was "
            f"left out{' and training stops' if stop else ''}. Its pairs ({names}) are in {path}"
        )
        return stop

    def _check_space(self) -> None:
        """Refuse to start a save that cannot fit beside the file it replaces."""
        newest = self.state_path("latest")
        needed = newest.stat().st_size if newest.is_file() else 0
        if shutil.disk_usage(self.folder).free < 1.1 * needed:
            raise OSError(errno.ENOSPC, "too little space left on the device")

    def _prune(self) -> None:
        numbered = [
            p for p in self.folder.glob("*_state.pth") if p.name.partition("_")[0].isdigit()
        ]
        numbered.sort(key=lambda p: p.stat().st_mtime)
        for path in numbered[: max(0, len(numbered) - self.keep_last)]:
            path.unlink(missing_ok=True)
            checkpoint.side_file(path).unlink(missing_ok=True)
