"""A test run that is interrupted is resumed; what is there is of this run or not taken."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import test as test_command
import train as train_command
from models.generation import load_generator
from tests.conftest import ROOT
from tests.training_child import write_tiny_data
from util.errors import UserError

SMALL = "--ngf 4 --ndf 4 --gpu_ids -1 --nThreads 0 --loadSize 32 --old_size 32".split()  # noqa: SIM905


def call(command, *words: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, words)])
        assert not command.main()


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A data set, a run of two epochs, and its complete results."""
    root = tmp_path_factory.mktemp("generation")
    data = write_tiny_data(root / "data")
    where = ["--dataroot", data, "--checkpoints_dir", root / "runs", "--name", "run"]
    call(train_command, *where, *SMALL, "--vgg_weights", "random", "--no_tensorboard", "--no_html",
         "--niter", 2, "--niter_decay", 0, "--max_dataset_size", 1, "--phase", "train")  # fmt: skip
    call(test_command, *arguments(root, root / "whole"))
    return root


def arguments(root: Path, results: Path) -> list[object]:
    words = ["--dataroot", root / "data", "--checkpoints_dir", root / "runs", "--name", "run"]
    words += ["--phase", "train", "--gpu_ids", "-1", "--nThreads", 0, "--results_dir", results]
    return words


def files(folder: Path) -> dict[str, str]:
    """Hash of every file but those that hold the date."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("generation.json", "test_opt.txt")
        and path.suffix != ".html"
    }  # fmt: skip


@pytest.fixture
def half(world, tmp_path) -> Path:
    """Results of which some pairs, some photos of the page and the pages are missing."""
    folder = tmp_path / "half"
    shutil.copytree(world / "whole", folder)
    for path in sorted(folder.glob("*_vis.png"))[::2]:
        path.unlink()
    torn = sorted(folder.glob("*_vis.png"))[0]
    torn.write_bytes(torn.read_bytes()[:100])
    next((folder / "page_images").glob("*[0-9].jpg")).unlink()
    (folder / "index.html").unlink()
    return folder


def test_a_resumed_test_run_makes_only_what_is_missing_and_gives_the_same_files(
    world, half, monkeypatch, capsys
):
    whole = [path for path in half.glob("*_vis.png") if path.stat().st_size > 100]
    before = {path: path.stat().st_mtime_ns for path in whole}
    call(test_command, *arguments(world, half), "--resume")
    assert files(half) == files(world / "whole")
    kept = [path for path in whole if path.stat().st_mtime_ns == before[path]]
    assert 0 < len(kept) < len(files(half))
    assert f"{len(kept)} of them from before" in capsys.readouterr().out
    assert (half / "index.html").is_file()


def test_a_complete_run_is_left_alone(world, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(world / "whole", folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*_vis.png")}
    call(test_command, *arguments(world, folder), "--resume")
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*_vis.png")}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--which_epoch", 1], "which_epoch latest, not 1"),
        (["--how_many", 2], "pairs 8, not 2"),
        (["--seed", 3], "seed 0, not 3"),
        (["--save_format", "jpg"], "save_format png, not jpg"),
    ],
)
def test_results_of_another_run_are_not_resumed(change, words, world, half):
    with pytest.raises(UserError, match=words):
        call(test_command, *arguments(world, half), "--resume", *change)


def test_a_changed_checkpoint_is_not_resumed(world, half, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(world / "runs", runs)
    path = runs / "run" / "latest_net_G.pth"
    state = torch.load(path, weights_only=True)
    torch.save({key: value * 1.5 for key, value in state.items()}, path)
    path.with_name(path.name + ".sha256").unlink()
    with pytest.raises(UserError, match=r"sha256 \w+, not \w+; give the same, leave --resume out"):
        call(test_command, *arguments(world, half), "--resume", "--checkpoints_dir", runs)


def test_results_in_another_format_replace_the_earlier_ones(world, tmp_path):
    folder = tmp_path / "formats"
    shutil.copytree(world / "whole", folder)
    call(test_command, *arguments(world, folder), "--save_format", "jpg")
    assert len(list(folder.glob("*_vis.jpg"))) == 8
    assert not list(folder.glob("*_vis.png"))


def test_a_killed_test_run_is_resumed_to_equal_files(world, tmp_path):
    folder = tmp_path / "killed"
    words = [*arguments(world, folder)]
    command = [sys.executable, ROOT / "test.py", *words]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(folder.glob("*_vis.png"))) < 2:
        time.sleep(0.01)
    process.kill()
    process.wait()
    (folder / "page_images").mkdir(exist_ok=True)
    (folder / "page_images" / ".half.jpg.0123456789ab.tmp").write_bytes(b"half")
    call(test_command, *words, "--resume")
    assert files(folder) == files(world / "whole")


def test_the_hash_in_generation_json_is_of_the_bytes_that_were_loaded(tmp_path):
    """A training replaces the checkpoint while it is being read."""
    path = tmp_path / "latest_net_G.pth"
    path.write_bytes(b"first")
    loaded = []

    class Model:
        opt = type("opt", (), {"ema": 0.0})

        def network_path(self, label, which):
            return path

        def load_networks(self, which, labels):
            loaded.append(path.read_bytes())
            if len(loaded) < 3:
                path.write_bytes(f"version {len(loaded)}".encode())

        def eval_mode(self):
            pass

    _, digest = load_generator(Model(), "latest")
    assert loaded == [b"first", b"version 1", b"version 2"]
    assert digest == hashlib.sha256(loaded[-1]).hexdigest()


def test_every_result_bears_the_mark_of_generation_json(world):
    run = json.loads((world / "whole" / "generation.json").read_text())
    assert len(run["run"]) == 12
    assert run["options"]["ngf"] == 4
    assert run["pairs"] == 8
