"""Signals, time limits, dying helpers: the run is saved, ends with its status, never hangs."""

import errno
import os
import signal
import socket

import pytest
import torch

from tests.ports import free_port
from tests.small_runs import assert_clean, small_argv, total, train
from tests.training_child import Child, assert_equal, write_tiny_data
from util.errors import UserError
from util.run import checkpoint
from util.run.folder import RunFolder
from util.run.main import (
    EXIT_AT_ONCE,
    EXIT_INTERRUPTED,
    EXIT_NOT_SAVED,
    StopRequest,
    explain,
    run_main,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(scope="module")
def dots(tmp_path_factory):
    """Eight training pairs of 8 x 8 pixels."""
    return write_tiny_data(tmp_path_factory.mktemp("dots"), pairs=8, size=8)


@pytest.fixture
def argv(dots, tmp_path):
    """A short training of tiny networks in ``tmp_path / "run"``."""
    return small_argv(dots, tmp_path)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_one_signal_saves_the_step_and_exits_with_75(name, argv, tmp_path):
    status, text = train(argv, tmp_path, step=5, signal=getattr(signal, name))
    assert status == EXIT_INTERRUPTED
    assert f"stopped by {name} after 5 samples" in text
    assert "Traceback" not in text
    assert total(tmp_path / "run") == 5
    assert_clean(tmp_path / "run")


def test_a_signal_to_the_whole_job_leaves_the_loader_processes_alive_until_the_save(argv, tmp_path):
    plan = {"step": 5, "signal": signal.SIGTERM, "group": True}
    status, text = train([*argv, "--nThreads", 2], tmp_path, **plan)
    assert status == EXIT_INTERRUPTED, text
    assert total(tmp_path / "run") == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_a_closed_terminal_stops_and_saves(workers, argv, tmp_path):
    argv = [*argv, "--nThreads", workers, "--save_latest_freq", 100]
    plan = {"deaf": 3, "step": 5, "signal": signal.SIGHUP, "group": True}
    status, text = train(argv, tmp_path, **plan)
    assert status == EXIT_INTERRUPTED, text
    assert "epoch 1/2 2/8" in text
    assert "epoch 1/2 3/8" not in text
    assert total(tmp_path / "run") == 5
    assert_clean(tmp_path / "run")


def test_a_training_whose_output_nobody_reads_goes_on(argv, tmp_path):
    status, text = train(argv, tmp_path, deaf=3, full_from=5)  # there is something to warn of
    assert status == EXIT_NOT_SAVED, text
    assert "epoch 1/2 3/8" not in text
    assert len((tmp_path / "run" / "loss_log.txt").read_text().splitlines()) == 16


def test_under_nohup_a_closed_terminal_has_no_effect(own_handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest() as stop:
        stop.begin()
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.requested()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_the_time_limit_saves_and_exits_with_75(argv, tmp_path):
    status, text = train([*argv, "--max_minutes", "0.000001"], tmp_path)
    assert status == EXIT_INTERRUPTED
    assert "stopped by --max_minutes after 1 samples" in text
    assert total(tmp_path / "run") == 1


@pytest.mark.parametrize(
    ("name", "expected"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", EXIT_AT_ONCE)]
)
def test_before_the_first_step_every_signal_ends_the_run_and_leaves_nothing(
    name, expected, argv, tmp_path
):
    status, text = train(argv, tmp_path, early=getattr(signal, name))
    assert status == expected
    assert "Traceback" not in text
    assert not (tmp_path / "run").exists()


def test_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_keyboard_interrupt_inside_a_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x_state.pth"
    checkpoint.save(path, {"a": torch.ones(3)})

    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {"a": torch.zeros(3)})
    assert_clean(tmp_path)
    assert_equal(checkpoint.load(path), {"a": torch.ones(3)})


def test_a_loader_process_that_is_killed_ends_the_run_with_one_sentence(argv, tmp_path):
    status, text = train([*argv, "--nThreads", 1], tmp_path, kill_worker=4)
    assert status == 2
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "a loader process died" in lines[0]
    assert "--workers" in lines[0]
    assert "Traceback" not in text
    assert total(tmp_path / "run") == 3


def test_a_disk_that_stays_full_does_not_stop_the_training_and_ends_with_4(argv, tmp_path):
    status, text = train(argv, tmp_path, full_from=5)
    assert status == EXIT_NOT_SAVED, text
    assert text.count("was not saved") == 1
    assert "epoch 2/2 8/8" in text
    assert total(tmp_path / "run") == 3
    assert_clean(tmp_path / "run")


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_goes_on(argv, tmp_path):
    argv = [*argv, "--niter", 10**6]  # neither ends by itself
    first = Child(argv, {"tiny": True}, tmp_path / "first")
    first.wait_for(tmp_path / "run" / "latest_state.pth")
    status, text = train([*argv, "--continue_train"], tmp_path)
    assert status == 2, text
    assert f"another training (process {first.process.pid}) is writing to" in text
    first.kill(signal.SIGTERM)
    assert first.wait() == EXIT_INTERRUPTED, first.text()[-2000:]
    saved = total(tmp_path / "run")
    assert f"after {saved:,} samples" in first.text()
    status, text = train([*argv, "--continue_train"], tmp_path, step=1, signal=signal.SIGTERM)
    assert status == EXIT_INTERRUPTED, text
    assert total(tmp_path / "run") == saved + 1


def test_overwrite_removes_the_older_run_completely(argv, tmp_path):
    assert train([*argv, "--save_epoch_freq", 1], tmp_path)[0] == 0
    assert (tmp_path / "run" / "2_state.pth").exists()
    (tmp_path / "run" / "notes of mine.txt").write_text("keep")
    assert train([*argv, "--overwrite", "--max_minutes", 1e-6], tmp_path)[0] == 75
    assert total(tmp_path / "run") == 1
    assert not (tmp_path / "run" / "2_state.pth").exists()
    assert not (tmp_path / "run" / "2_net_G.pth").exists()
    assert len((tmp_path / "run" / "loss_log.txt").read_text().splitlines()) == 1
    assert (tmp_path / "run" / "notes of mine.txt").read_text() == "keep"


def test_a_folder_that_vanishes_costs_its_checkpoints_and_no_traceback(argv, tmp_path):
    status, text = train(argv, tmp_path, lose=(tmp_path / "run", 5))
    assert status == EXIT_NOT_SAVED, text
    assert "Traceback" not in text
    assert text.count("was not saved (No such file or directory)") == 1
    assert "epoch 2/2 8/8" in text


def test_leaving_a_folder_in_which_nothing_was_written_removes_it(tmp_path):
    with RunFolder(tmp_path / "a", resume=False, overwrite=False):
        assert (tmp_path / "a").is_dir()
    assert not (tmp_path / "a").exists()


# ---- several processes ---------------------------------------------------------------------------


def two_processes(argv, tmp_path, plan=None, only: int | None = None) -> list[tuple[int, str]]:
    """(status, output) of two processes that train together; the plan is for ``only`` or both."""
    port = free_port()
    children = []
    for rank in range(2):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        own = plan if plan and only in (None, rank) else {}
        settings = {"tiny": True, "environment": environment, **own}
        children.append(Child(argv, settings, tmp_path / f"output {rank}"))
    return [(child.wait(), child.text()) for child in children]


def test_a_signal_to_one_of_two_processes_saves_and_stops_both_and_they_resume_exactly(
    argv, tmp_path
):
    whole = [*argv, "--name", "whole"]
    assert [s for s, _ in two_processes(whole, tmp_path)] == [0, 0]
    plan = {"step": 3, "signal": signal.SIGTERM}
    results = two_processes(argv, tmp_path, plan, only=1)
    assert [s for s, _ in results] == [75, 75], results
    assert "stopped by another process after 6 samples" in results[0][1]
    assert total(tmp_path / "run") == 6
    state = checkpoint.load(tmp_path / "run" / "latest_state.pth")
    first, second = (g["torch"] for g in state["generators"])
    assert not torch.equal(first, second)  # processes do not share their noise
    results = two_processes([*argv, "--continue_train"], tmp_path)
    assert [s for s, _ in results] == [0, 0], results
    states = [checkpoint.load(tmp_path / name / "latest_state.pth") for name in ("run", "whole")]
    assert_equal(*states)


def test_a_run_goes_from_one_process_to_two_and_back(argv, tmp_path):
    single = [*argv, "--batchSize", 2]
    plan = {"step": 1, "signal": signal.SIGTERM}
    assert train(single, tmp_path, **plan)[0] == 75
    results = two_processes([*argv, "--continue_train"], tmp_path, plan)
    assert [s for s, _ in results] == [75, 75], results
    assert total(tmp_path / "run") == 4
    assert train([*single, "--continue_train"], tmp_path)[0] == 0
    assert total(tmp_path / "run") == 16
    assert len((tmp_path / "run" / "loss_log.txt").read_text().splitlines()) == 8


def test_a_port_in_use_is_one_sentence(argv, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        status, text = train(argv, tmp_path, environment=environment)
    assert status == 2
    assert f"could not join the others at 127.0.0.1:{port}" in text
    assert "--master_port" in text
    assert "Traceback" not in text


# ---- exit statuses -------------------------------------------------------------------------------


def raising(error: BaseException):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("a sentence\nof two lines"), 2, "error: a sentence of two lines\n"),
        (OSError(errno.ENOSPC, "full", "out.png"), 2, "out.png cannot be read or written"),
        (PermissionError(errno.EACCES, "no", "x.csv"), 2, "x.csv cannot be read or written"),
        (MemoryError(), 2, "the memory is exhausted"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), 2,
         "a smaller --batchSize"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"),
         2, "a loader process died (DataLoader worker (pid 7) is killed by signal: Bus error"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)  # fmt: skip
def test_what_is_no_bug_becomes_one_line_and_a_status(error, status, words, capsys, monkeypatch):
    cleaned = []
    with pytest.raises(SystemExit) as caught:
        run_main(raising(error), cleanup=lambda: cleaned.append(1))
    assert caught.value.code == status
    text = capsys.readouterr().err
    assert words in text
    assert text.count("\n") == 1
    assert cleaned == [1]
    monkeypatch.setattr("sys.argv", ["test.py", "--debug"])
    with pytest.raises(type(error)):
        run_main(raising(error))


def test_a_bug_keeps_its_traceback():
    for error in (KeyError("x"), RuntimeError("shapes do not match"), FileNotFoundError("x")):
        assert explain(error) is None
        with pytest.raises(type(error)):
            run_main(raising(error))
