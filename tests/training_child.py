"""Runs train.py in processes that end, or are ended, at a chosen moment.

Children are forked from a server process that has imported everything, so one costs a fraction of a
second. A plan says what happens inside a child::

    {"step": 7, "signal": SIGTERM}      the child sends itself a signal after its 7th step
    {"operation": 30}                   SIGKILL at the 30th change of a file by a save
    {"nan_step": 2}                     the 2nd step of the child has a gradient that is not finite
    {"kill_worker": 3}                  SIGKILL to a loader process after the 3rd step
    {"late": True}                      as on a GPU, a step's gradient is judged after the next step
    {"tiny": True}                      networks of a few numbers instead of the model's own
    {"early": SIGTERM}                  the signal comes while the model is being built
    {"full_from": 5}                    from the 5th step on every write of a checkpoint is refused
    {"fill": (path, 5, 9)}              a file fills the disk after step 5 and is gone after step 9
    {"group": True}                     "signal" goes to the loader processes too
    {"interrupts": (5, 30)}             Ctrl-C after step 5, at every change of a file by a save
                                        from the 30th after that on, and until the process has ended
    {"lose": (folder, 5)}               the folder is removed after step 5
    {"deaf": 3}                         nobody reads its output any more after step 3
    {"environment": {...}}              variables, of a launcher for example
"""

import contextlib
import errno
import functools
import multiprocessing
import multiprocessing.context
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._inductor  # --deterministic imports it; it takes seconds: once, in the server
import torch.utils.tensorboard
from PIL import Image
from torch import nn

import train
from models.base_model import BaseModel
from models.losses.perceptual import random_vgg19_state
from models.optim import Stepper
from tests import interruptions
from tests.faulty_disk import FaultyDisk
from util.run import checkpoint
from util.run.main import run_main
from util.tables.patn import write_keypoints, write_pairs

random_vgg19_state()  # remembered by the children
ROOT = Path(train.__file__).parent
SMALL = ["--ngf", "4", "--ndf", "4", "--gpu_ids", "-1", "--deterministic", "--nThreads", "0"]
SMALL += ["--vgg_weights", "random", "--print_freq", "1", "--no_html", "--no_tensorboard"]


@dataclass(frozen=True)
class TinyConfig:
    """Nothing to configure."""


class TinyModel(BaseModel):
    """A few numbers, and all that a state has to keep: batch norm, noise, two optimizers."""

    def __init__(self, opt):
        super().__init__(opt)
        net_G = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        self.add_network("G", net_G, TinyConfig(), opt.lr)
        self.add_network("D", nn.Sequential(nn.Conv2d(3, 1, 1)), TinyConfig(), opt.lr)

    def forward(self) -> None:
        image = self.inputs["source_image"]
        self.fake = self.networks["G"](image + 0.1 * torch.randn_like(image))

    def infer(self, inputs):
        return {"fake_target": self.networks["G"](inputs["source_image"]).tanh()}

    def optimize_parameters(self) -> None:
        self.forward()
        loss_D = self.networks["D"](self.fake.detach()).square().mean()
        self.step("D", loss_D)
        loss_G = (self.fake - self.inputs["target_image"]).abs().mean()
        loss_G = loss_G + 0.1 * self.networks["D"](self.fake).mean()
        self.step("G", loss_G)
        self.losses = {"G": loss_G.detach(), "D": loss_D.detach()}
        total = sum(p.sum() for n in self.networks.values() for p in n.parameters())
        assert torch.isfinite(total)

    @property
    def visuals(self):
        return {"fake_target": self.fake.detach().tanh()}


def write_tiny_data(root: Path, pairs: int = 8, size: int = 8) -> Path:
    """A data set in the fashion layout with pictures of ``size`` pixels."""
    rng = np.random.default_rng(0)
    names = [f"person {i}.png" for i in range(pairs + 1)]
    for phase in ("train", "test"):
        (root / phase).mkdir(parents=True)
        for name in names:
            pixels = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / phase / name)
        write_pairs(root / f"fasion-resize-pairs-{phase}.csv", list(zip(names, names[1:])))  # noqa: B905, RUF007
        points = {name: rng.integers(-1, size, (18, 2)).astype(float) for name in names}
        write_keypoints(root / f"fasion-resize-annotation-{phase}.csv", points)
    return root


# ---- in the child ------------------------------------------------------------------------------


def _install(plan: dict[str, Any]) -> None:
    """Arrange for what the plan says."""
    if plan.get("tiny"):
        train.create_model = TinyModel
    os.environ.update(plan.get("environment", {}))
    if plan.get("late"):
        make = Stepper.__init__
        Stepper.__init__ = lambda own, *words: (make(own, *words), setattr(own, "late", True))[0]
    if "early" in plan:
        model = train.create_model
        train.create_model = lambda opt: (os.kill(os.getpid(), plan["early"]), model(opt))[1]
    if "operation" in plan:
        FaultyDisk(plan["operation"], lambda: os.kill(os.getpid(), signal.SIGKILL)).install()
    watch, steps = train.TrainingRun.watch, 0

    def after_step(run, *arguments):
        nonlocal steps
        steps += 1
        result = watch(run, *arguments)
        if plan.get("journal"):
            with open(plan["journal"], "a", buffering=1) as stream:
                stream.write(f"{run.progress.total}\n")
        if steps == plan.get("step"):
            send = os.killpg if plan.get("group") else os.kill
            send(os.getpid(), plan["signal"])
        if steps == plan.get("lose", (None, None))[1]:
            shutil.rmtree(plan["lose"][0])
        if "fill" in plan:
            _fill(*plan["fill"], steps)
        if steps == plan.get("full_from"):
            FaultyDisk(1, _refuse, only_writes=True).install()
        if steps == plan.get("interrupts", [None])[0]:
            interruptions.interrupt()
            interruptions.interrupt_every_change_of_a_file(plan["interrupts"][1])
        if steps == plan.get("deaf"):
            interruptions.lose_the_reader()
        if steps == plan.get("kill_worker"):
            worker = multiprocessing.active_children()[0]
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
        if steps + 1 == plan.get("nan_step"):
            _spoil_next_step()
        return result

    train.TrainingRun.watch = after_step
    if "interrupts" in plan:
        interruptions.interrupt_the_end()
    if plan.get("nan_step") == 1:
        _spoil_next_step()


def _fill(path: Path, first: int, last: int, step: int) -> None:
    """Fill the disk that holds ``path`` after step ``first``, empty it after step ``last``."""
    if step == first:
        with open(path, "wb", buffering=0) as stream, contextlib.suppress(OSError):
            while stream.write(bytes(1024)):
                pass
    if step == last:
        path.unlink()


def _refuse() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _spoil_next_step() -> None:
    """Multiply the losses of the next step by infinity minus infinity."""
    backward = Stepper.backward
    begin = Stepper.begin

    def spoiled(stepper, label, loss):
        backward(stepper, label, loss * float("nan"))

    def healed(stepper):
        Stepper.backward, Stepper.begin = backward, begin
        begin(stepper)

    def armed(stepper):
        begin(stepper)
        Stepper.backward, Stepper.begin = spoiled, healed

    Stepper.begin = armed


def _child(argv: list[str], plan: dict[str, Any], output: str) -> None:
    with open(output, "ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.setpgid(0, 0)  # a signal to the group reaches this training only
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as in a terminal, even under nohup
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as in train.py
    sys.argv = ["train.py", *argv]
    _install(plan)
    run_main(train.main, cleanup=train.distributed.shutdown)


# ---- in the test -------------------------------------------------------------------------------


@functools.cache
def _server() -> multiprocessing.context.ForkServerContext:
    """The process from which children are forked; it finds our modules from any folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context


class Child:
    """A training process: ``Child(argv, plan, output)``, then :meth:`wait`."""

    def __init__(self, argv: list[object], plan: dict[str, Any], output: Path):
        self.output = output
        words = [str(word) for word in argv]
        self.process = _server().Process(target=_child, args=(words, plan, str(output)))
        self.process.start()

    def wait(self, seconds: float = 300) -> int:
        """Exit status; minus the number of the signal that ended the process."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"the training did not end:\n{self.text()[-2000:]}")
        return self.process.exitcode

    def wait_for(self, path: Path, seconds: float = 300) -> None:
        """Until the training has made a file."""
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert self.process.is_alive(), self.text()[-2000:]
            assert time.monotonic() < deadline, self.text()[-2000:]
            time.sleep(0.01)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, unless the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def text(self) -> str:
        """All that it wrote."""
        return self.output.read_text(errors="replace")


def run(argv: list[object], plan: dict[str, Any], output: Path) -> tuple[int, str]:
    """Exit status and output of one training."""
    child = Child(argv, plan, output)
    return child.wait(), child.text()


def logged_losses(folder: Path) -> list[str]:
    """Lines of the loss log without their time, the only thing that differs from run to run."""
    lines = (folder / "loss_log.txt").read_text().splitlines()
    return [re.sub(r"time: [0-9.]+", "", line) for line in lines]


def assert_equal(first: Any, second: Any, where: str = "state") -> None:
    """Two checkpoint contents are equal to the bit."""
    assert type(first) is type(second), where
    if torch.is_tensor(first):
        assert first.dtype == second.dtype, where
        assert first.shape == second.shape, where
        same = torch.equal(first, second) or torch.equal(
            first.flatten().contiguous().view(torch.uint8),
            second.flatten().contiguous().view(torch.uint8),
        )
        assert same, where
    elif isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal(a, b, f"{where}[{index}]")
    else:
        assert first == second, where


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, optimizers, random numbers, curves and logged losses of two runs are equal."""
    states = [checkpoint.load(folder / "latest_state.pth") for folder in (first, second)]
    assert_equal(*states)
    assert logged_losses(first) == logged_losses(second)
    for label in states[0]["model"]["networks"]:
        files = [folder / f"latest_net_{label}.pth" for folder in (first, second)]
        assert_equal(*map(checkpoint.load, files), label)
