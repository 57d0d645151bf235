"""Network files go to safetensors and back bit for bit, and both kinds are read everywhere."""

import json
import shutil
import struct
import sys

import pytest
import torch

import test as test_command
from models import create_model, list_models
from script import export_safetensors as script
from tests.helpers import train_options
from tests.training_child import assert_equal, write_tiny_data
from util.errors import UserError
from util.image import load_image
from util.run import checkpoint
from util.run.checkpoint import read_safetensors, write_safetensors
from util.run.main import run_main


def build(name: str, folder):
    return create_model(
        train_options(
            model=name, ngf=4, ndf=4, load_size=(64, 64), old_size=(8, 8), gpu_ids=-1,
            checkpoints_dir=folder, name="run",
        )
    )  # fmt: skip


def call(monkeypatch, *argv: object) -> int:
    monkeypatch.setattr(sys, "argv", ["export_safetensors.py", *map(str, argv)])
    with pytest.raises(SystemExit) as caught:
        run_main(script.main)
    return caught.value.code


@pytest.mark.parametrize("name", list_models())
def test_every_network_of_every_model_survives_both_ways(name, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    model = build(name, tmp_path)
    model.save_networks("latest")
    before = {p.name: checkpoint.load(p) for p in (tmp_path / "run").glob("latest_net_*.pth")}
    assert call(monkeypatch, tmp_path / "run") == 0
    for path in (tmp_path / "run").glob("latest_net_*.pth"):
        path.unlink()
        checkpoint.side_file(path).unlink()
    torch.manual_seed(5)
    other = build(name, tmp_path)
    other.load_networks("latest")  # reads the .safetensors files
    for label, network in model.networks.items():
        assert_equal(dict(network.state_dict()), dict(other.networks[label].state_dict()), label)
    for file, state in before.items():
        source = (tmp_path / "run" / file).with_suffix(".safetensors")
        assert call(monkeypatch, source) == 0
        assert_equal(state, checkpoint.load(tmp_path / "run" / file), file)


def test_two_names_of_one_tensor_come_back_and_the_file_holds_it_once(tmp_path):
    weight = torch.randn(100, 100)
    write_safetensors({"b": weight, "a": weight, "c": weight[0]}, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size < 1.2 * weight.numel() * 4
    state = read_safetensors(tmp_path / "a.safetensors")
    assert list(state) == ["b", "a", "c"]
    assert all(torch.equal(x, y) for x, y in zip(state.values(), (weight, weight, weight[0])))  # noqa: B905


def test_a_file_of_another_program_has_no_names_of_ours(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
    assert_equal(read_safetensors(tmp_path / "x.safetensors"), {"x": torch.ones(2)})


def header(content: object) -> bytes:
    data = json.dumps(content).encode()
    return struct.pack("<Q", len(data)) + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        struct.pack("<Q", 2**60) + b"{}",
        header([]),
        header({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}),
        header({"__metadata__": {"names": "nonsense"}}),
        header({"__metadata__": {"names": '[["a", "b"]]'}}),
        header({"__metadata__": {"names": "7"}}),
    ],
)
def test_a_damaged_file_is_one_sentence(data, tmp_path):
    path = tmp_path / "latest_net_G.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match="is not a readable safetensors file") as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)


def test_the_script_refuses_what_it_cannot_do(tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    checkpoint.save(tmp_path / "run" / "latest_state.pth", {"model": {}, "progress": 1})
    checkpoint.save(tmp_path / "run" / "latest_net_G.pth", {"a": torch.ones(1)})
    for argv, words in [
        ((tmp_path / "run", "--which_epoch", "7"), "holds no 7_net_*.pth"),
        ((tmp_path / "run" / "latest_state.pth",), "does not hold a state dict"),
        ((tmp_path / "run" / "latest_net_G.pth", "-o", "x.onnx"), "ends in .pth or .safetensors"),
        ((tmp_path / "nothing.pth",), "no checkpoint"),
        ((tmp_path / "run" / "latest_net_G.pth", "--replace"), "unknown option --replace"),
    ]:
        assert call(monkeypatch, *argv) == 2
        assert words in capsys.readouterr().err
    assert call(monkeypatch, tmp_path / "run") == 0
    assert call(monkeypatch, tmp_path / "run") == 2
    assert "exists; pass --overwrite" in capsys.readouterr().err
    assert call(monkeypatch, tmp_path / "run", "--overwrite") == 0


def test_testing_reads_a_safetensors_file_and_gives_the_same_images(tmp_path, monkeypatch):
    data = write_tiny_data(tmp_path / "data", pairs=1)
    (tmp_path / "run").mkdir()
    build("DPTN", tmp_path).save_networks("latest")

    def generate(results: str) -> bytes:
        argv = ["--model", "DPTN", "--ngf", "4", "--loadSize", "64", "--old_size", "8"]
        argv += ["--gpu_ids", "-1", "--nThreads", "0", "--no_html", "--name", "run"]
        argv += ["--dataroot", str(data), "--checkpoints_dir", str(tmp_path)]
        monkeypatch.setattr(
            sys, "argv", ["test.py", *argv, "--results_dir", str(tmp_path / results)]
        )
        test_command.main()
        (image,) = (tmp_path / results).glob("*_vis.png")
        return load_image(image).tobytes()

    first = generate("a")
    assert call(monkeypatch, tmp_path / "run") == 0
    shutil.move(tmp_path / "run" / "latest_net_G.pth", tmp_path / "elsewhere.pth")
    assert generate("b") == first


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    other, path = tmp_path / "other", tmp_path / "net.safetensors"
    other.write_bytes(b"")
    write_safetensors({"weight": torch.zeros(2)}, path)
    assert path.stat().st_mode == other.stat().st_mode
