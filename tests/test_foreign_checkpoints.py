"""Checkpoints of other programs and damaged ones: what is understood, and what is said."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.test_checkpoint_crashes import new_run
from util.errors import UserError
from util.run import checkpoint
from util.run.folder import check_architecture, save_architecture


@pytest.mark.parametrize("text", ["[1, 2]", '{"G": 5}', '{"G": [1]}', "{", "[" * 20_000, "nul"])
def test_an_architecture_file_of_another_kind_is_a_sentence(tmp_path, text):
    configs = {"G": {"ngf": 4}}
    save_architecture(tmp_path, configs)
    check_architecture(tmp_path, configs)
    (tmp_path / "architecture.json").write_text(text)
    with pytest.raises(UserError, match=r"architecture\.json (does not hold|is not valid)"):
        check_architecture(tmp_path, configs)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state["progress"].update(epoch="3"),
        lambda state: state["progress"].update(total=-4),
        lambda state: state["progress"].update(total=float("nan")),
        lambda state: state.update(model=None),
        lambda state: state.update(extra=[]),
        lambda state: state["model"].update(networks=[1]),
    ],
)
def test_a_state_with_values_of_a_wrong_type_is_a_sentence(tmp_path, damage):
    assert new_run(tmp_path, 1.0).save("latest")
    state = checkpoint.load(tmp_path / "latest_state.pth")
    damage(state)
    checkpoint.save(tmp_path / "latest_state.pth", state)
    with pytest.raises(UserError, match="latest_state"):
        new_run(tmp_path, 0.0).resume("latest")


def layer():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.mark.parametrize(
    "rename",
    [
        lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
        lambda state: {k.replace(".", "._orig_mod.", 1): v for k, v in state.items()},
        lambda state: {k.replace(".", ".module.", 1): v for k, v in state.items()},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3},
    ],
)
def test_the_marks_of_wrappers_and_containers_are_understood(rename, tmp_path):
    source, target = layer(), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    torch.save(rename(source.state_dict()), tmp_path / "a.pth")
    checkpoint.load_network(target, tmp_path / "a.pth")
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)


def test_python_objects_beside_the_tensors_are_named_with_what_to_save_instead(tmp_path):
    torch.save({"state_dict": layer().state_dict(), "loss": np.float64(3)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"numpy.*torch.save\(network.state_dict\(\)"):
        checkpoint.load_network(layer(), tmp_path / "a.pth")


WRONG = {
    "NaN": lambda w: w * float("nan"),
    "of another kind": lambda w: w.to(torch.int64),
    "complex": lambda w: w.to(torch.complex64),
    "sparse": lambda w: w.to_sparse(),
    "meta": lambda w: w.to("meta"),
    "quantised": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_tensor_that_is_no_weight_is_named(kind, tmp_path):
    state = layer().state_dict()
    state["0.weight"] = WRONG[kind](state["0.weight"])
    with pytest.raises(UserError, match=rf"0\.weight.*{kind}|{kind}.*0\.weight"):
        checkpoint.load_state(layer(), state, "the file")


def test_keys_that_are_no_names_are_a_sentence():
    state = dict(enumerate(layer().state_dict().values()))
    with pytest.raises(UserError, match="key 0"):
        checkpoint.load_state(layer(), state, "the file")


@pytest.mark.parametrize("damage", ["binary", "folder"])
def test_a_side_file_of_another_kind_makes_the_checkpoint_damaged(damage, tmp_path):
    path = tmp_path / "latest_net_G.pth"
    checkpoint.save_state(layer().state_dict(), path)
    side = checkpoint.side_file(path)
    side.unlink()
    side.mkdir() if damage == "folder" else side.write_bytes(b"\xff\x00\xfe")
    with pytest.raises(UserError, match="does not match"):
        checkpoint.load_network(layer(), path)
