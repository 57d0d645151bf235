"""Every mistake of a user is one sentence and status 2, and nothing that was there is damaged."""

import hashlib
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import test as test_command
import train as train_command
from tests.bad_inputs import Setting
from tests.bad_runs import CASES
from tests.training_child import write_tiny_data
from util.errors import UserError
from util.image import load_image
from util.run import distributed
from util.run.main import run_main

COMMANDS = {"train": train_command, "resume": train_command, "test": test_command}
# A picture that turns out to be damaged in the first batch ends a run that has begun.
NEW_RUN = {"runs/experiment/train_opt.json", "runs/experiment/train_opt.txt"}
SMALL = [
    "--ngf",
    "4",
    "--ndf",
    "4",
    "--gpu_ids",
    "-1",
    "--nThreads",
    "0",
    "--vgg_weights",
    "random",
]
SMALL += ["--no_tensorboard", "--no_html", "--loadSize", "64", "--old_size", "8"]


def call(command: str, argv: list[str], monkeypatch) -> int:
    """Exit status of train.py or test.py, run in this process."""
    monkeypatch.setattr(sys, "argv", [f"{command}.py", *argv])
    with pytest.raises(SystemExit) as caught:
        run_main(COMMANDS[command].main)
    return caught.value.code


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Setting:
    """A data set and a run of one step on it, which the cases copy."""
    root = tmp_path_factory.mktemp("original")
    setting = Setting(write_tiny_data(root / "data"), root / "runs")
    argv = ["--dataroot", str(setting.data), "--checkpoints_dir", str(setting.runs), *SMALL]
    argv += ["--max_dataset_size", "1", "--niter", "1", "--niter_decay", "0"]
    with pytest.MonkeyPatch.context() as patch:
        assert call("train", [*argv, "--name", "good", "--save_epoch_freq", "1"], patch) == 0
    return setting


@pytest.fixture
def setting(original, tmp_path) -> Setting:
    shutil.copytree(original.data, tmp_path / "data")
    shutil.copytree(original.runs, tmp_path / "runs")
    return Setting(tmp_path / "data", tmp_path / "runs")


def usual_arguments(setting: Setting, command: str) -> list[str]:
    argv = ["--dataroot", str(setting.data), "--checkpoints_dir", str(setting.runs)]
    if command == "test":
        results = str(setting.runs.parent / "results")
        return [*argv, "--gpu_ids", "-1", "--name", "good", "--results_dir", results]
    argv += [*SMALL, "--serial_batches"]
    return [*argv, "--name", "good", "--continue_train"] if command == "resume" else argv


def everything_in(folder: Path) -> dict[str, str]:
    """Files below a folder with the hashes of their content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def the_sentence(text: str) -> str:
    """The one line on stderr that says what is wrong."""
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0] == text.splitlines()[-1]
    return lines[0]


def test_the_table_is_long_enough_and_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_a_mistake_is_one_sentence_and_damages_nothing(case, setting, monkeypatch, capsys):
    case.change(setting)
    before = everything_in(setting.runs.parent)
    argv = [*usual_arguments(setting, case.command), *setting.argv]
    assert call(case.command, argv, monkeypatch) == 2
    sentence = the_sentence(capsys.readouterr().err)
    for words in case.words:
        assert words in sentence
    assert len(sentence) < 700
    after = everything_in(setting.runs.parent)
    assert before.items() <= after.items()
    assert after.keys() - before.keys() <= NEW_RUN


def test_debug_shows_the_traceback(setting, monkeypatch):
    argv = [*usual_arguments(setting, "train"), "--debug", "--dataroot", str(setting.data / "no")]
    monkeypatch.setattr(sys, "argv", ["train.py", *argv])
    with pytest.raises(UserError, match="no such folder"):
        run_main(train_command.main)


def test_a_mistake_in_a_loader_process_is_the_same_sentence(setting, monkeypatch, capsys):
    (setting.data / "train" / "person 0.png").write_bytes(b"text")
    argv = [*usual_arguments(setting, "train"), "--nThreads", "1"]
    assert call("train", argv, monkeypatch) == 2
    sentence = the_sentence(capsys.readouterr().err)
    assert "train/person 0.png is not a readable image" in sentence
    assert "worker" not in sentence


def test_vgg_that_can_be_neither_found_nor_loaded_says_what_to_do(setting, monkeypatch, capsys):
    def offline(*arguments, **options):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setenv("TORCH_HOME", str(setting.data / "hub"))
    monkeypatch.setenv("HOME", str(setting.data / "home"))
    argv = [*usual_arguments(setting, "train"), "--vgg_weights", "imagenet"]
    assert call("train", argv, monkeypatch) == 2
    sentence = the_sentence(capsys.readouterr().err)
    for words in ("could not be downloaded", "Network is unreachable", "vgg19-dcbb9e9d.pth"):
        assert words in sentence
    assert "--vgg_weights random" in sentence
    assert not (setting.runs / "experiment").exists()


@pytest.mark.parametrize(
    ("gpu_ids", "words"),
    [("7", "GPU 7 was asked for, but this machine has 2"), ("0,1", "one process drives one GPU")],
)
def test_gpus_that_do_not_exist_are_named(gpu_ids, words, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UserError, match=words):
        distributed.local_device(gpu_ids)


@pytest.fixture
def tiny_disk(tmp_path):
    """A folder of 16 KiB."""
    path = tmp_path / "tiny"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_results_on_a_full_disk_are_one_sentence_and_no_half_picture(
    setting, tiny_disk, monkeypatch, capsys
):
    argv = [*usual_arguments(setting, "test"), "--results_dir", str(tiny_disk), "--no_html"]
    argv += ["--old_size", "64"]
    assert call("test", argv, monkeypatch) == 2
    sentence = the_sentence(capsys.readouterr().err)
    assert "No space left on device" in sentence
    assert "free space" in sentence
    for path in tiny_disk.glob("*_vis.png"):
        assert load_image(path).size == (64, 64)
    assert not list(tiny_disk.glob(".*"))


@pytest.fixture
def read_only(tmp_path):
    """A folder that nobody can write to, root included."""
    path = tmp_path / "read only"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(path)]
    if os.geteuid():
        path.chmod(0o500)
    elif subprocess.run(command, capture_output=True).returncode:
        pytest.skip("root, without the right to mount, may write everywhere")
    yield path
    if os.geteuid():
        path.chmod(0o700)
    else:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize(
    ("command", "option"), [("train", "--checkpoints_dir"), ("test", "--results_dir")]
)
def test_a_read_only_folder_is_named(command, option, setting, read_only, monkeypatch, capsys):
    before = everything_in(setting.runs)
    argv = [*usual_arguments(setting, command), option, str(read_only)]
    assert call(command, argv, monkeypatch) == 2
    sentence = the_sentence(capsys.readouterr().err)
    assert f"cannot write to {read_only}" in sentence
    assert option in sentence
    assert everything_in(setting.runs) == before


def test_a_run_in_a_read_only_folder_is_still_tested(setting, monkeypatch, capsys):
    for path in (setting.run, *setting.run.iterdir()):
        path.chmod(path.stat().st_mode & ~0o222)
    before = everything_in(setting.runs)
    argv = [*usual_arguments(setting, "test"), "--how_many", "1"]
    assert call("test", argv, monkeypatch) == 0
    assert everything_in(setting.runs) == before
    assert len(list((setting.runs.parent / "results").glob("*_vis.png"))) == 1
