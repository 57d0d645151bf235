"""The command that makes the shipped weights, on trainings of a second."""

import json
from argparse import Namespace
from dataclasses import replace

import pytest
import torch

from script import quickstart, showcase
from script.quickstart import Training, render
from script.showcase import check_budget, publish, train_stage
from util.errors import UserError
from util.run import checkpoint

TINY = Training((16, 16), 1.0, "--ngf 4 --ndf 4 --dis_layers 1", lr=1e-6)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Rendered people; both trainings see them at 16 x 16 and change the weights by 1e-6 a step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, "TIMED_STEPS", 1)
    monkeypatch.setattr(quickstart, "allotted_cpus", lambda: 1)
    monkeypatch.setitem(showcase.TRAININGS, "cpu", (TINY, replace(TINY, lambda_g=2.0)))
    render(tmp_path / "people", 3, 2, 6)
    return tmp_path / "people"


def run(name, start_from=None):
    """Options of a run of no time at all."""
    return Namespace(name=name, minutes=0.001, device="cpu", start_from=start_from)


def weights(path):
    state = checkpoint.load(path)
    return torch.cat([v.float().flatten() for v in state.values() if v.is_floating_point()])


def test_published_weights_are_trained_further_and_both_runs_count(data):
    first = run("first")
    assert check_budget(first) == {"samples": 0, "hours": 0.0}
    stages = [train_stage(first, index, data) for index in (0, 1)]
    folder = publish("first")
    half, full = (f"checkpoints/first_{stage}/latest_net_G_ema.pth" for stage in showcase.STAGES)
    assert not torch.equal(weights(half), weights(full))
    shipped = weights(folder / "latest_net_G.safetensors")
    assert torch.allclose(shipped, weights(full), atol=1e-3)  # of half precision

    spent = {"samples": sum(stage.samples for stage in stages), "hours": 0.25}
    (folder / "numbers.json").write_text(json.dumps({"training": spent, "tables": []}))
    more = run("more", folder)
    assert check_budget(more) == spent
    train_stage(more, 1, data)
    assert not (data.parent / "checkpoints/more_half_size").exists()
    assert torch.allclose(
        weights("checkpoints/more_full_size/latest_net_G.pth"), shipped, atol=1e-3
    )

    (folder / "numbers.json").unlink()  # as when the run replaces what it started from
    assert check_budget(more) == spent
    with pytest.raises(UserError, match="started from checkpoints/first: give the same"):
        check_budget(run("more"))


def test_a_start_from_a_folder_that_was_not_published_is_a_sentence(data):
    with pytest.raises(UserError, match="expects a folder that this command published"):
        check_budget(run("more", data))
