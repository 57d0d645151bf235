"""A save that is cut off anywhere, or that the disk refuses, costs nothing saved before."""

import errno
import os
import random
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import pytest
import torch

from models.training import TrainingRun
from tests.faulty_disk import FaultyDisk, Killed, end_the_process
from tests.training_child import SMALL, assert_equal, run, write_tiny_data
from util.errors import UserError
from util.run import checkpoint
from util.run.folder import RunFolder
from util.show.visualizer import Visualizer


class Weights:
    """As much of a model as a run needs: two networks whose numbers all equal ``value``."""

    def __init__(self, folder: Path, value: float):
        self.folder, self.device, self.notes, self.ema = folder, torch.device("cpu"), [], {}
        self.networks = {label: torch.nn.Linear(4, 4) for label in ("G", "D")}
        self.fill(value)

    def fill(self, value: float) -> None:
        for network in self.networks.values():
            for parameter in network.parameters():
                torch.nn.init.constant_(parameter, value)

    def state_dict(self):
        return {"networks": {k: n.state_dict() for k, n in self.networks.items()}}

    def load_state_dict(self, state, origin) -> bool:
        for label, network in self.networks.items():
            network.load_state_dict(state["networks"][label])
        return True

    def save_networks(self, which) -> None:
        for label, network in self.networks.items():
            checkpoint.save_state(network.state_dict(), self.folder / f"{which}_net_{label}.pth")


class Recorder(Visualizer):
    """Keeps the warnings."""

    def __init__(self):
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


EVERY = pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """The order of operations is tested here, not the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def new_run(folder: Path, value: float) -> TrainingRun:
    return TrainingRun(Weights(folder, value), RunFolder(folder, True, False), Recorder())


def saved_value(folder: Path) -> float:
    """The one number of the state; every file of the folder must be readable and of one piece."""
    for path in folder.glob("*.pth"):
        assert_equal_numbers(checkpoint.load(path))
    state = checkpoint.load(folder / "latest_state.pth")
    return assert_equal_numbers(state["model"]["networks"])


def assert_equal_numbers(content) -> float:
    """The number that all tensors of a network or of a state hold."""
    tensors, waiting = [], [content]
    while waiting:
        item = waiting.pop()
        if torch.is_tensor(item):
            tensors.append(item.flatten())
        elif isinstance(item, dict):
            waiting += [value for key, value in item.items() if key not in ("extra", "generators")]
    (number,) = torch.cat(tensors).unique().tolist()
    return number


def crash(folder: Path, value: float, operation: int) -> bool:
    """Save ``value`` and die at the given operation; False when the save was over before."""
    run = new_run(folder, value)
    with FaultyDisk(operation, end_the_process) as disk:
        try:
            run.save("latest", "7")
        except Killed:
            return True
    assert not disk.failed
    return False


def restart(folder: Path) -> float:
    """What a run that starts after the crash finds; it must be able to go on and save."""
    with RunFolder(folder, resume=True, overwrite=False):
        assert not list(folder.glob(".*.tmp"))
        run = TrainingRun(Weights(folder, 0.0), RunFolder(folder, True, False), Recorder())
        assert run.resume("latest")
    return run.model.networks["G"].weight[0, 0].item()


@pytest.fixture
def ram(tmp_path):
    """A folder in memory, where there is one: hundreds of saves take a while on a disk."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as path:
        yield Path(path)


@pytest.fixture
def folder(ram):
    """A run folder that holds a complete checkpoint of ones."""
    path = ram / "run"
    path.mkdir()
    assert new_run(path, 1.0).save("latest", "7")
    return path


def count_operations(folder: Path) -> int:
    with FaultyDisk(10**9, end_the_process) as disk:
        assert new_run(folder, 1.0).save("latest", "7")
    return disk.count


@EVERY
def test_a_crash_at_any_operation_of_a_save_leaves_the_old_or_the_new_checkpoint(
    every, folder, ram
):
    total, seen = count_operations(folder), set()
    assert total > 60
    for operation in range(1, total + 1, every):
        copy = ram / "copy"
        shutil.copytree(folder, copy)
        assert crash(copy, 2.0, operation)
        found = saved_value(copy)
        assert restart(copy) == found
        seen.add(found)
        assert new_run(copy, 3.0).save("latest", "7")
        assert saved_value(copy) == 3.0
        shutil.rmtree(copy)
    assert seen == {1.0, 2.0}


def test_many_crashes_in_a_row_never_leave_an_unreadable_file(folder, ram):
    rng, total = random.Random(3), count_operations(folder)
    for trial in range(30):
        copy = ram / "copy"
        shutil.copytree(folder, copy)
        possible = {1.0}
        for value in range(2, 2 + rng.randrange(2, 5)):
            assert crash(copy, float(value), rng.randrange(1, total + 1)), trial
            found = saved_value(copy)
            assert found in possible | {float(value)}
            possible = {found}
        assert restart(copy) == found
        shutil.rmtree(copy)


def test_the_first_save_of_a_run_leaves_nothing_or_a_whole_checkpoint(ram):
    for operation in range(1, 500, 3):
        folder = ram / str(operation)
        folder.mkdir()
        if not crash(folder, 2.0, operation):
            break
        for path in folder.glob("*.pth"):
            assert assert_equal_numbers(checkpoint.load(path)) == 2.0
    else:
        pytest.fail("a save never ends")


# ---- a disk that refuses -------------------------------------------------------------------------


def refuse() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@EVERY
def test_a_full_disk_at_any_write_keeps_the_old_checkpoint_and_warns_once(every, folder, ram):
    with FaultyDisk(10**9, refuse, only_writes=True) as disk:
        assert new_run(folder, 1.0).save("latest", "7")
    for operation in range(1, disk.count + 1, every):
        copy = ram / "copy"
        shutil.copytree(folder, copy)
        run = new_run(copy, 2.0)
        with FaultyDisk(operation, refuse, only_writes=True):
            assert not run.save("latest", "7")
            assert not run.save("latest", "7")
        assert len(run.warn.__self__.warnings) == 1
        assert "No space left on device" in run.warn.__self__.warnings[0]
        assert "was not saved" in run.warn.__self__.warnings[0]
        assert saved_value(copy) in (1.0, 2.0)
        assert not list(copy.glob(".*.tmp"))
        assert run.save("latest", "7")
        assert saved_value(copy) == 2.0
        shutil.rmtree(copy)


@pytest.fixture
def small_disk(tmp_path):
    """A folder of 1 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if (
        os.name != "posix"
        or os.geteuid()
        or subprocess.run(command, capture_output=True).returncode
    ):
        pytest.skip("needs root and the right to mount")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_really_full_disk_keeps_the_old_checkpoint_and_warns_once(small_disk):
    run = new_run(small_disk, 1.0)
    assert run.save("latest")
    size = sum(p.stat().st_size for p in small_disk.iterdir())
    ballast = small_disk / "ballast"
    for room in range(0, size, 4096):
        run = new_run(small_disk, 2.0)
        ballast.write_bytes(b"")
        free = shutil.disk_usage(small_disk).free
        ballast.write_bytes(bytes(max(0, free - room)))
        if run.save("latest"):
            break
        assert not run.save("latest")
        assert len(run.warn.__self__.warnings) == 1
        assert saved_value(small_disk) in (1.0, 2.0)
        assert not list(small_disk.glob(".*.tmp"))
    ballast.unlink(missing_ok=True)
    assert run.save("latest")
    assert saved_value(small_disk) == 2.0


def test_a_training_goes_on_while_its_disk_is_full_and_saves_again_afterwards(small_disk, tmp_path):
    data = write_tiny_data(tmp_path / "data")
    argv = ["--dataroot", data, "--checkpoints_dir", small_disk, "--name", "run", *SMALL]
    argv += ["--loadSize", 8, "--old_size", 8, "--niter", 4, "--niter_decay", 0]
    argv += ["--save_latest_freq", 2, "--keep_last", 1, "--display_freq", 4]
    argv = [word for word in argv if word not in ("--no_html", "--no_tensorboard")]
    plan = {"tiny": True, "fill": (small_disk / "ballast", 5, 21)}
    status, text = run(argv, plan, tmp_path / "output")
    warned = [line for line in text.splitlines() if line.startswith("warning: ")]
    assert status == 0, text
    assert len([line for line in warned if "was not saved" in line]) == 1
    assert len({line.split("could not be written")[0] for line in warned}) == len(warned)
    assert "Traceback" not in text
    state = checkpoint.load(small_disk / "run" / "latest_state.pth")
    assert state["progress"]["total"] == 32
    lines = (small_disk / "run" / "loss_log.txt").read_text().splitlines()
    assert len(lines) > 8
    assert all(line.startswith("(epoch: ") and "lr_D: " in line for line in lines)


def test_torch_hides_a_full_disk_and_save_tells(small_disk):
    path = small_disk / "latest_state.pth"
    checkpoint.save(path, {"a": torch.zeros(10)})
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.save(path, {"a": torch.zeros(2**20)})
    assert caught.value.errno == errno.ENOSPC
    assert_equal(checkpoint.load(path), {"a": torch.zeros(10)})
    assert sorted(p.name for p in small_disk.iterdir()) == [path.name, path.name + ".sha256"]


def test_a_run_that_cannot_fit_is_refused_before_it_starts(small_disk):
    model = Weights(small_disk, 1.0)
    model.networks["G"] = torch.nn.Linear(300, 300)
    with RunFolder(small_disk, resume=False, overwrite=False) as folder:
        run = TrainingRun(model, folder, Recorder())
        with pytest.raises(UserError, match=r"has 1 MiB left.*need 2 MiB"):
            run.start("latest", lambda: None)


# ---- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "grown"])
def test_a_damaged_file_is_named_and_the_newest_good_one_offered(folder, damage):
    path = folder / "latest_state.pth"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 3] ^= 1
    elif damage == "empty":
        data = bytearray()
    else:
        data += b"x"
    path.write_bytes(data)
    for number, age in (("8", 50), ("9", 20)):
        for file in ("state.pth", "state.pth.sha256"):
            shutil.copy(folder / f"7_{file}", folder / f"{number}_{file}")
        os.utime(folder / f"{number}_state.pth", (age, age))
    (folder / "8_state.pth").write_bytes(b"bad")
    run = new_run(folder, 0.0)
    with pytest.raises(UserError) as caught:
        run.resume("latest")
    assert f"{path} is damaged" in str(caught.value)
    assert "the newest good one is --which_epoch 7 (older: 9)" in str(caught.value)
    assert new_run(folder, 0.0).resume("7")


def test_a_file_without_a_side_file_that_is_cut_is_recognised_too(folder):
    path = folder / "latest_net_G.pth"
    path.write_bytes(path.read_bytes()[:-100])
    checkpoint.side_file(path).unlink()
    with pytest.raises(UserError, match=r"latest_net_G.pth is not a readable checkpoint") as caught:
        checkpoint.load(path)
    assert "newest good one is --which_epoch 7" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_any_change_of_any_byte_is_noticed(folder):
    path = folder / "latest_net_D.pth"
    data = path.read_bytes()
    for position in random.Random(0).sample(range(len(data)), 100):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :])
        with pytest.raises(UserError, match=r"latest_net_D\.pth is damaged"):
            checkpoint.load(path)


def test_only_the_newest_numbered_states_stay_and_all_networks(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    run = TrainingRun(Weights(folder, 1.0), RunFolder(folder, True, False), Recorder(), keep_last=2)
    for epoch in range(1, 6):
        assert run.save("latest", str(epoch))
    states = sorted(p.name for p in folder.glob("*_state.pth"))
    assert states == ["4_state.pth", "5_state.pth", "latest_state.pth"]
    assert len(list(folder.glob("*_net_G.pth"))) == 6
    assert not [p for p in folder.glob("*.sha256") if not (folder / p.stem).exists()]


def test_no_warning_of_python_comes_out_of_a_save(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert new_run(folder, 2.0).save("latest")
