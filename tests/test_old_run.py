"""A run that an earlier version of this code left (tests/golden/README.md) is still read."""

import re
import sys
import tarfile

import numpy as np
import pytest
import torch

import test as test_command
import train as train_command
from tests.helpers import GOLDEN
from tests.training_child import write_tiny_data
from util.run import checkpoint


@pytest.fixture
def old(tmp_path):
    """The folder of checkpoints with ``old_run``, and its data beside it."""
    with tarfile.open(GOLDEN / "old_run.tar.xz") as archive:
        archive.extractall(tmp_path / "ck", filter="data")
    write_tiny_data(tmp_path / "data", pairs=4, size=16)
    return tmp_path


def start(command, monkeypatch, old, *words):
    common = ["--name", "old_run", "--checkpoints_dir", old / "ck", "--dataroot", old / "data"]
    common += ["--nThreads", "0", "--gpu_ids", "-1"]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, common), *words])
        return command.main()


def logged(text: str) -> list[dict[str, float]]:
    pairs = [re.findall(r"(\w+): ([-\d.]+)", line) for line in text.splitlines()]
    return [{name: float(value) for name, value in line if name != "time"} for line in pairs]


def test_training_goes_on_from_an_old_state_with_the_numbers_of_the_old_code(old, monkeypatch):
    words = [
        "--model",
        "DPTN",
        "--ngf",
        "2",
        "--ndf",
        "2",
        "--num_CABs",
        "1",
        "--num_TTBs",
        "1",
        "--dis_layers",
        "2",
        "--load_size",
        "16",
        "--old_size",
        "16",
        "--batchSize",
        "2",
        "--niter",
        "2",
        "--niter_decay",
        "0",
        "--vgg_weights",
        "random",
        "--lambda_affi",
        "0",
        "--ema",
        "0.9",
        "--deterministic",
        "--print_freq",
        "2",
        "--no_tensorboard",
        "--keep_last",
        "1",
        "--no_vgg_centre",
        "--continue_train",
    ]
    folder = old / "ck" / "old_run"
    first = checkpoint.load(folder / "latest_state.pth")
    assert start(train_command, monkeypatch, old, *words) == 0
    log = logged((folder / "loss_log.txt").read_text())
    expected = logged((folder / "expected_log.txt").read_text())
    assert len(log) == 4
    for ours, theirs in zip(log[2:], expected, strict=True):
        assert {k: ours[k] for k in theirs} == pytest.approx(theirs, rel=0.02, abs=2e-3)
    last = checkpoint.load(folder / "latest_state.pth")
    assert last.keys() == first.keys()
    assert last["model"].keys() == first["model"].keys()
    assert last["model"]["stepper"].keys() == first["model"]["stepper"].keys()
    assert last["progress"] == {"epoch": 3, "samples": 0, "total": 8, "previous": 6}
    page = (folder / "web" / "index.html").read_text()
    assert "4" in page
    assert (folder / "web" / "images" / "0000000004_6_fake_target.jpg").is_file()


@pytest.mark.parametrize("average", [False, True])
def test_an_old_checkpoint_generates(average, old, monkeypatch):
    words = ["--results_dir", str(old / "results"), "--no_html", *["--ema", "0.9"][: 2 * average]]
    start(test_command, monkeypatch, old, *words)
    assert len(list((old / "results").glob("*_vis.png"))) == 4
    name = "latest_net_G_ema.pth" if average else "latest_net_G.pth"
    state = checkpoint.load(old / "ck" / "old_run" / name)
    assert all(np.isfinite(v.numpy()).all() for v in state.values() if torch.is_tensor(v))
