"""A step with a gradient that is not finite changes nothing, is reported and can be reproduced."""

import copy
import os
from argparse import Namespace

import pytest
import torch

from models import create_model, list_models
from models.training import KEPT_DUMPS, MAX_SKIPPED, TrainingRun
from tests.helpers import random_batch, train_options
from tests.training_child import SMALL, assert_equal, logged_losses, run, write_tiny_data
from util.run import checkpoint
from util.run.folder import RunFolder
from util.run.main import EXIT_NOT_FINITE
from util.show.visualizer import Visualizer

needs_signals = pytest.mark.skipif(os.name != "posix", reason="forked children")


# ---- the step ------------------------------------------------------------------------------------


def snapshot(model) -> dict:
    """Everything that a step may change except spectral norm's own estimates."""
    networks = {
        label: {
            key: value.clone()
            for key, value in network.state_dict().items()
            if not key.endswith(("weight_u", "weight_v", "num_batches_tracked"))
        }
        for label, network in model.networks.items()
    }
    optimizers = {k: copy.deepcopy(o.state_dict()) for k, o in model.stepper.optimizers.items()}
    return {"networks": networks, "optimizers": optimizers}


@pytest.mark.parametrize("name", list_models())
def test_a_spoiled_step_changes_no_weight_no_moment_and_no_statistic(name, tmp_path):
    torch.manual_seed(0)
    steps = {"step_size": 2} if name == "dptn_step" else {}
    model = create_model(
        train_options(
            model=name, ngf=4, ndf=4, load_size=(64, 64), old_size=(64, 64), gpu_ids=-1,
            checkpoints_dir=tmp_path, **steps,
        )
    )  # fmt: skip
    model.set_input(random_batch(2, (64, 64)))
    model.optimize_parameters()
    assert model.stepper.not_finite() is None
    before = snapshot(model)
    model.set_input(random_batch(2, (64, 64), seed=1))
    for role in ("source", "target"):
        model.inputs[f"{role}_image"][0, 0, 5, 5] = float("nan")
    model.optimize_parameters()
    assert model.stepper.not_finite() in model.networks
    assert_equal(before, snapshot(model))
    model.set_input(random_batch(2, (64, 64), seed=2))
    model.optimize_parameters()
    assert model.stepper.not_finite() is None
    after = snapshot(model)
    for label, network in after["networks"].items():
        assert all(torch.isfinite(value).all() for value in network.values()), label
        changed = any(not torch.equal(v, before["networks"][label][k]) for k, v in network.items())
        assert changed, label


# ---- the run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dots(tmp_path_factory):
    return write_tiny_data(tmp_path_factory.mktemp("dots"), pairs=8, size=8)


@pytest.fixture
def argv(dots, tmp_path):
    return [
        "--dataroot", dots, "--checkpoints_dir", tmp_path, "--name", "run", *SMALL,
        "--batchSize", 2, "--loadSize", 8, "--old_size", 8, "--niter", 1, "--niter_decay", 1,
        "--save_latest_freq", 2,
    ]  # fmt: skip


def warnings_in(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("warning: ")]


@needs_signals
def test_stop_ends_the_run_with_3_and_the_checkpoint_before_it(argv, tmp_path):
    plan = {"tiny": True, "nan_step": 3}
    status, text = run([*argv, "--on_nan", "stop"], plan, tmp_path / "output")
    assert status == EXIT_NOT_FINITE
    assert "Traceback" not in text
    (warning,) = warnings_in(text)
    assert "is not finite after 6 samples; the step was left out and training stops" in warning
    state = checkpoint.load(tmp_path / "run" / "latest_state.pth")
    assert state["progress"]["total"] == 4

    dump = checkpoint.load(tmp_path / "run" / "not_finite_6.pth")
    assert dump["network"] in ("G", "D")
    assert dump["source_image"].shape == (2, 3, 8, 8)
    for source, target in zip(dump["source_name"], dump["target_name"], strict=True):
        assert f"{source} to {target}" in warning
    assert str(tmp_path / "run" / "not_finite_6.pth") in warning


@needs_signals
def test_skip_leaves_one_step_out_and_goes_on(argv, tmp_path):
    plan = {"tiny": True, "nan_step": 3}
    status, text = run([*argv, "--on_nan", "skip"], plan, tmp_path / "output")
    assert status == 0
    (warning,) = warnings_in(text)
    assert "the step was left out. Its pairs: person " in warning
    state = checkpoint.load(tmp_path / "run" / "latest_state.pth")
    assert state["progress"]["total"] == 16
    steps = [int(s["step"]) for s in state["model"]["stepper"]["optimizers"]["G"]["state"].values()]
    assert set(steps) == {7}
    for network in state["model"]["networks"].values():
        assert all(torch.isfinite(value).all() for value in network.values())
    lines = logged_losses(tmp_path / "run")
    assert len(lines) == 8
    assert "grad_G: nan" in lines[2]


@needs_signals
@pytest.mark.parametrize("step", [3, 7, 8])
def test_on_a_gpu_every_step_is_judged_the_very_last_one_too(step, argv, tmp_path):
    """There a step is judged after the next one: nothing waits for the device."""
    plan = {"tiny": True, "nan_step": step, "late": True}
    status, text = run([*argv, "--on_nan", "stop"], plan, tmp_path / "output")
    assert status == EXIT_NOT_FINITE
    (warning,) = warnings_in(text)
    assert f"is not finite after {2 * step} samples; the step was left out" in warning
    dump = checkpoint.load(tmp_path / "run" / f"not_finite_{2 * step}.pth")
    for source, target in zip(dump["source_name"], dump["target_name"], strict=True):
        assert f"{source} to {target}" in warning


# ---- the report ----------------------------------------------------------------------------------


class Idle:
    """A model that a run only asks for its stepper."""

    def __init__(self, late=False):
        self.stepper = Namespace(late=late)


class Recorder(Visualizer):
    def __init__(self):
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def new_run(folder, late=False) -> TrainingRun:
    run = TrainingRun(Idle(late), RunFolder(folder, True, False), Recorder())
    run.progress.total = 1
    return run


def batch_of(name: str) -> dict:
    return {
        "source_name": [f"{name} <1>.jpg"],
        "target_name": ["ü.jpg"],
        "source_image": torch.zeros(1),
    }


def test_on_a_gpu_the_report_is_about_the_batch_before(tmp_path):
    run = new_run(tmp_path, late=True)
    assert not run.watch(batch_of("a"), None, "stop")
    assert run.watch(batch_of("b"), "G", "stop")
    assert "a <1>.jpg to ü.jpg" in run.visualizer.warnings[0]


def test_dumps_are_few_and_a_run_that_only_skips_stops(tmp_path):
    run = new_run(tmp_path)
    for step in range(1, MAX_SKIPPED + 1):
        run.progress.total = step
        stopped = run.watch(batch_of("a"), "G", "skip")
        assert stopped == (step == MAX_SKIPPED)
    assert len(list(tmp_path.glob("not_finite_*.pth"))) == KEPT_DUMPS
    assert len(run.visualizer.warnings) == MAX_SKIPPED
    assert not new_run(tmp_path).watch(batch_of("a"), "G", "skip")
    assert len(list(tmp_path.glob("not_finite_*.pth"))) == KEPT_DUMPS


def test_a_good_step_between_two_bad_ones_starts_the_count_anew(tmp_path):
    run = new_run(tmp_path)
    for _ in range(2):
        for _ in range(MAX_SKIPPED - 1):
            assert not run.watch(batch_of("a"), "D", "skip")
        assert not run.watch(batch_of("a"), None, "skip")


def test_a_dump_that_the_disk_refuses_does_not_end_the_run(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", refuse)
    run = new_run(tmp_path)
    assert not run.watch(batch_of("a"), "G", "skip")
    (warning,) = run.visualizer.warnings
    assert "the batch could not be saved: No space left on device" in warning
