"""The folder of a training run: one run at a time writes to it, and nothing is replaced unasked."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch

from util.errors import UserError
from util.files import read_json, remove_leftovers, write_atomically
from util.run import distributed
from util.run.checkpoint import check_torch, side_file

LOCK = ".lock"
ARCHITECTURE = "architecture.json"
# What --overwrite removes: all that an earlier run wrote and a new one would mix with its own.
_OF_A_RUN = (
    "*_state.pth*", "*_net_*.pth*", "*_net_*.safetensors", "not_finite_*.pth*", "loss_log.txt*",
    "iter.txt", ARCHITECTURE, "tensorboard", "web",
)  # fmt: skip

Configs = Mapping[str, Mapping[str, Any]]  # settings of each network, by its label


def save_architecture(run_dir: Path, configs: Configs) -> None:
    """Write the settings of all networks."""
    write_atomically(run_dir / ARCHITECTURE, json.dumps(configs, indent=1).encode())


def check_architecture(run_dir: Path, configs: Configs) -> None:
    """Refuse settings that contradict the saved ones; a folder without any says nothing."""
    path = run_dir / ARCHITECTURE
    if not path.is_file():
        return
    remedy = "delete it, keys and shapes are checked anyway"
    saved = read_json(path, remedy)
    if not isinstance(saved, dict) or not all(isinstance(v, dict) for v in saved.values()):
        raise UserError(f"{path} does not hold the settings of networks; {remedy}")
    for label, config in json.loads(json.dumps(configs)).items():  # tuples become lists
        for key, value in saved.get(label, {}).items():
            if key in config and config[key] != value:
                raise UserError(
                    f"{key} is {config[key]} by the options, but the checkpoint in {run_dir} was "
                    f"trained with {str(value)[:100]}: leave the option out or set it to that"
                )


class RunFolder:
    """Claims ``path`` for one training run, as a context manager.

    Entering makes the folder, takes its lock and removes half-written files of a killed run; a
    UserError says why that cannot be. Leaving releases the lock, and removes the folder if
    nothing was written. The other processes of a distributed run leave all this to the main one.

    :param resume: the run continues checkpoint ``which`` of the folder. A run that ended before its
        first save left none of its ``latest``: it starts anew, and ``resume`` is False then.
    :param overwrite: the run may replace what the folder holds; nothing is removed before
        :meth:`clear`.
    """

    def __init__(self, path: str | Path, resume: bool, overwrite: bool, which: str = "latest"):
        self.path = Path(path)
        self.resume = resume and (self.is_used() or which != "latest")
        self.begins_anew = resume and not self.resume
        self.overwrite = overwrite and not resume
        self._lock: TextIO | None = None

    def __enter__(self) -> RunFolder:
        if not distributed.is_main():
            return self
        if self.is_used() and not (self.resume or self.overwrite):
            raise UserError(
                f"{self.path} already holds a training run; pass --continue_train to resume it, "
                "another --name, or --overwrite to replace it"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / LOCK, "a+", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"cannot write to {self.path} ({error.strerror}); change --checkpoints_dir"
            ) from error
        self._take_lock(self._lock)
        for folder in (self.path, self.path / "web", self.path / "web" / "images"):
            remove_leftovers(folder)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is None:
            return
        with contextlib.suppress(OSError):  # a mounted folder stays; a lost one is gone already
            if [p.name for p in self.path.iterdir()] == [LOCK]:
                (self.path / LOCK).unlink()
                self.path.rmdir()
        self._lock.close()

    def is_used(self) -> bool:
        """Whether there is a checkpoint that a new run would replace."""
        kinds = ("*_state.pth", "*_net_*", "*_net.pth")
        return any(any(self.path.glob(pattern)) for pattern in kinds)

    def clear(self) -> None:
        """Remove what an earlier run left, if --overwrite asked for it; call it before writing."""
        for pattern in _OF_A_RUN if self.overwrite else ():
            for path in self.path.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _take_lock(self, stream: TextIO) -> None:
        """Refuse a second run in the same folder; where the file system has no locks, go on."""
        try:
            import fcntl

            # Unlike flock, not inherited by loader processes, which outlive a killed run.
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            owner = stream.read().strip() or "unknown"
            stream.close()
            self._lock = None
            advice = distributed.separate_starts()
            raise UserError(
                f"another training (process {owner}) is writing to {self.path}; "
                + (advice or "wait for it, stop it, or choose another --name")
            ) from None
        except (ImportError, OSError):
            return
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()


def prune_states(folder: Path, keep: int) -> None:
    """Remove all states of numbered checkpoints but the newest ``keep``; network files stay.

    Newest by the samples trained, not by the clock, which may have been set back.
    """
    states = [p for p in folder.glob("*_state.pth") if p.name.partition("_")[0].isdecimal()]
    states.sort(key=lambda p: (_samples(p), int(p.name.partition("_")[0])))
    for path in states[: max(0, len(states) - keep)]:
        path.unlink(missing_ok=True)
        side_file(path).unlink(missing_ok=True)


def _samples(path: Path) -> int:
    """Samples trained when a state was saved; -1 for a file that cannot be read."""
    try:
        check_torch(path)
        return int(torch.load(path, weights_only=True, mmap=True)["progress"]["total"])
    except Exception:  # whatever is wrong with it: it is no state to go on from
        return -1
