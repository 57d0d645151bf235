"""A run that was killed at any moment and continued equals one that was not, to the last bit."""

import os
import random
import shutil
import signal
import time
import zlib

import pytest
import torch

from models import list_models
from tests.training_child import (
    SMALL,
    Child,
    assert_equal,
    assert_same_run,
    logged_losses,
    run,
    write_tiny_data,
)
from util.run import checkpoint
from util.run.main import EXIT_INTERRUPTED

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

STEPS = 4  # of the runs with real networks: two epochs of two


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two training pairs of 64 x 64 pixels."""
    return write_tiny_data(tmp_path_factory.mktemp("photos"), pairs=2, size=64)


@pytest.fixture(scope="module")
def dots(tmp_path_factory):
    """Eight training pairs of 8 x 8 pixels."""
    return write_tiny_data(tmp_path_factory.mktemp("dots"), pairs=8, size=8)


def arguments(root, folder, name, *more) -> list[object]:
    return [
        "--dataroot", root, "--checkpoints_dir", folder, "--name", name, *SMALL,
        "--batchSize", 1, "--niter_decay", 1, *more,
    ]  # fmt: skip


def of_model(model, root, folder, name, *more) -> list[object]:
    extra = ["--loadSize", 64, "--old_size", 64, "--niter", 1, "--save_latest_freq", 1]
    extra += ["--step_size", 2] * (model == "dptn_step")
    return arguments(root, folder, name, "--model", model, *extra, *more)


def of_tiny(root, folder, name, *more) -> list[object]:
    size = ["--loadSize", 8, "--old_size", 8, "--niter", 10_000, "--save_latest_freq", 3]
    return arguments(root, folder, name, *size, "--ema", 0.9, *more)


def state_of(folder):
    return checkpoint.load(folder / "latest_state.pth")


@pytest.mark.parametrize("model", list_models())
def test_killed_and_continued_equals_uninterrupted(model, photos, tmp_path):
    moment = random.Random(zlib.crc32(model.encode())).randrange(2, STEPS + 1)
    status, text = run(of_model(model, photos, tmp_path, "whole"), {}, tmp_path / "whole.txt")
    assert status == 0, text
    killed = of_model(model, photos, tmp_path, "killed")
    plan = {"step": moment, "signal": signal.SIGKILL}
    assert run(killed, plan, tmp_path / "killed.txt")[0] == -signal.SIGKILL
    saved = state_of(tmp_path / "killed")["progress"]["total"]
    assert saved == moment - 1
    status, text = run([*killed, "--continue_train"], {}, tmp_path / "killed.txt")
    assert status == 0, text
    assert state_of(tmp_path / "killed")["progress"]["total"] == STEPS
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("moment", [1, 8, 11])  # 8: the last step of an epoch
def test_sigterm_saves_within_one_step_and_the_run_goes_on_exactly(workers, moment, dots, tmp_path):
    options = ["--nThreads", workers, "--niter", 1]
    whole = of_tiny(dots, tmp_path, "whole", *options)
    assert run(whole, {"tiny": True}, tmp_path / "whole.txt")[0] == 0
    stopped = of_tiny(dots, tmp_path, "stopped", *options)
    plan = {"tiny": True, "step": moment, "signal": signal.SIGTERM}
    status, text = run(stopped, plan, tmp_path / "stopped.txt")
    assert status == EXIT_INTERRUPTED, text
    assert f"stopped by SIGTERM after {moment} samples" in text
    assert state_of(tmp_path / "stopped")["progress"]["total"] == moment
    status, text = run([*stopped, "--continue_train"], {"tiny": True}, tmp_path / "stopped.txt")
    assert status == 0, text
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_finished_run_continues_with_more_epochs_and_ends_at_once_without(dots, tmp_path):
    argv = of_tiny(dots, tmp_path, "run", "--niter", 1)
    assert run(argv, {"tiny": True}, tmp_path / "log")[0] == 0
    before = (tmp_path / "run" / "latest_state.pth").read_bytes()
    assert run([*argv, "--continue_train"], {"tiny": True}, tmp_path / "log")[0] == 0
    assert (tmp_path / "run" / "latest_state.pth").read_bytes() == before
    longer = of_tiny(dots, tmp_path, "run", "--niter", 2, "--continue_train")
    assert run(longer, {"tiny": True}, tmp_path / "log")[0] == 0
    assert state_of(tmp_path / "run")["progress"]["epoch"] == 4


def test_validation_the_best_value_and_the_page_continue_exactly(dots, tmp_path):
    options = ["--niter", 1, "--val_freq", 3, "--val_pairs", 3, "--val_metrics", "psnr"]
    whole = of_tiny(dots, tmp_path, "whole", *options)
    stopped = of_tiny(dots, tmp_path, "stopped", *options)
    whole, stopped = ([w for w in argv if w != "--no_html"] for argv in (whole, stopped))
    assert run(whole, {"tiny": True}, tmp_path / "whole.txt")[0] == 0
    plan = {"tiny": True, "step": 7, "signal": signal.SIGKILL}
    assert run(stopped, plan, tmp_path / "stopped.txt")[0] == -signal.SIGKILL
    status, text = run([*stopped, "--continue_train"], {"tiny": True}, tmp_path / "stopped.txt")
    assert status == 0, text
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    assert state_of(tmp_path / "whole")["extra"]["best"] is not None
    files = [tmp_path / name / "best_net_G.pth" for name in ("whole", "stopped")]
    assert_equal(*map(checkpoint.load, files))


def test_an_older_numbered_checkpoint_continues_exactly(dots, tmp_path):
    argv = of_tiny(dots, tmp_path, "run", "--niter", 2)
    assert run(argv, {"tiny": True}, tmp_path / "log")[0] == 0
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    again = [*argv, "--continue_train", "--which_epoch", "2"]
    assert run(again, {"tiny": True}, tmp_path / "log")[0] == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_run_that_finds_its_networks_only_says_so_and_starts_its_schedule_anew(dots, tmp_path):
    argv = of_tiny(dots, tmp_path, "run", "--niter", 1)
    assert run(argv, {"tiny": True}, tmp_path / "log")[0] == 0
    (tmp_path / "run" / "latest_state.pth").unlink()
    plan = {"tiny": True, "step": 1, "signal": signal.SIGTERM}
    status, text = run([*argv, "--continue_train"], plan, tmp_path / "log")
    assert status == EXIT_INTERRUPTED
    assert "only the networks of latest are loaded" in text
    assert state_of(tmp_path / "run")["progress"]["total"] == 1


# ---- kills at random moments -------------------------------------------------------------------


def check_after_kill(folder, steps_done: int, interval: int) -> None:
    """Every checkpoint can be read, and at most the last save interval is lost."""
    for path in folder.glob("*.pth"):
        checkpoint.load(path)
    if not (folder / "latest_state.pth").exists():
        assert steps_done <= interval
        return
    assert state_of(folder)["progress"]["total"] >= steps_done - interval


def kill_at_random(rng: random.Random, argv, plan, output, start: float) -> bool:
    """Run until a random kill; True when it hit while the child was saving."""
    if rng.random() < 0.5:
        operation = rng.randrange(1, 90)
        child = Child(argv, {**plan, "operation": operation}, output)
        assert child.wait() == -signal.SIGKILL, child.text()[-2000:]
        return True
    journal = plan["journal"]
    size = journal.stat().st_size
    child = Child(argv, plan, output)
    deadline = time.monotonic() + 300
    while journal.stat().st_size == size and child.process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(rng.random() * start)
    child.kill()
    assert child.wait() == -signal.SIGKILL, child.text()[-2000:]
    return False


def survive_kills(kills: int, seed: int, dots, tmp_path) -> None:
    rng, interval = random.Random(seed), 3
    journal, output = tmp_path / "journal", tmp_path / "output"
    journal.touch()
    folder, saving = tmp_path / "killed", 0
    for _ in range(kills):
        resume = ["--continue_train"] * (folder / "latest_state.pth").exists()
        argv = of_tiny(dots, tmp_path, "killed", *resume)
        plan = {"tiny": True, "journal": journal}
        saving += kill_at_random(rng, argv, plan, output, start=0.2)
        lines = journal.read_text().split("\n")[:-1]
        check_after_kill(folder, int(lines[-1]) if lines else 0, interval)
    assert saving < kills or kills < 3

    total = state_of(folder)["progress"]["total"] + 7
    stop = {"tiny": True, "signal": signal.SIGTERM}
    steps = total - state_of(folder)["progress"]["total"]
    argv = of_tiny(dots, tmp_path, "killed", "--continue_train")
    assert run(argv, {**stop, "step": steps}, output)[0] == EXIT_INTERRUPTED
    argv = of_tiny(dots, tmp_path, "whole")
    assert run(argv, {**stop, "step": total}, output)[0] == EXIT_INTERRUPTED
    assert_equal(state_of(tmp_path / "whole"), state_of(folder))
    assert logged_losses(tmp_path / "whole") == logged_losses(folder)


def test_a_run_survives_six_kills_at_random_moments(dots, tmp_path):
    survive_kills(6, seed=1, dots=dots, tmp_path=tmp_path)


@pytest.mark.slow
def test_a_run_survives_fifty_kills_at_random_moments(dots, tmp_path):
    survive_kills(50, seed=2, dots=dots, tmp_path=tmp_path)


def test_the_random_numbers_of_the_model_continue_where_they_were(dots, tmp_path):
    argv = of_tiny(dots, tmp_path, "run", "--niter", 1)
    plan = {"tiny": True, "step": 5, "signal": signal.SIGTERM}
    assert run(argv, plan, tmp_path / "log")[0] == EXIT_INTERRUPTED
    first = state_of(tmp_path / "run")["model"]["rng"]["torch"]
    argv = of_tiny(dots, tmp_path, "other", "--niter", 1)
    assert run(argv, plan, tmp_path / "log")[0] == EXIT_INTERRUPTED
    assert torch.equal(first, state_of(tmp_path / "other")["model"]["rng"]["torch"])
