"""Ctrl-C again and again: the run leaves at once, with a documented status and whole files."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.small_runs import assert_clean, small_argv, total, train
from tests.training_child import Child, write_tiny_data
from util.files import replacing
from util.run import checkpoint
from util.run.main import EXIT_AT_ONCE, EXIT_INTERRUPTED, StopRequest, run_main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

# A training in an interpreter of its own, as a command line starts it.
ALONE = """
import json, sys
from tests.training_child import _child
_child(*json.loads(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def dots(tmp_path_factory):
    """Eight training pairs of 8 x 8 pixels."""
    return write_tiny_data(tmp_path_factory.mktemp("dots"), pairs=8, size=8)


@pytest.fixture
def argv(dots, tmp_path):
    """A short training of tiny networks in ``tmp_path / "run"``."""
    return small_argv(dots, tmp_path)


def test_a_second_ctrl_c_interrupts_and_further_signals_have_no_effect(own_handlers):
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:  # noqa: PT012
        stop.begin()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested()
        os.kill(os.getpid(), signal.SIGINT)  # the first one, so it may still save
        assert stop.reason == "SIGTERM"
        os.kill(os.getpid(), signal.SIGINT)
    for number in StopRequest.SIGNALS:
        os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):  # as if a destructor had swallowed the first one
        stop.requested()


def test_after_a_stop_and_its_save_signals_have_no_effect(own_handlers):
    with StopRequest() as stop:
        stop.begin()
        os.kill(os.getpid(), signal.SIGUSR1)
    for number in StopRequest.SIGNALS:
        os.kill(os.getpid(), number)
    with pytest.raises(SystemExit) as caught:
        run_main(lambda: EXIT_INTERRUPTED)
    assert caught.value.code == EXIT_INTERRUPTED
    assert all(signal.getsignal(number) is signal.SIG_IGN for number in StopRequest.SIGNALS)


# A save of these networks changes files about 41 times: the state is written, its hashes before
# and after it is fsynced and renamed (near 6), then the networks.
@pytest.mark.parametrize("operation", [1, 2, 3, 4, 5, 6, 8, 11, 30, 40, 10_000])
def test_ctrl_c_again_and_again_from_any_moment_of_the_save_on(operation, argv, tmp_path):
    status, text = train(argv, tmp_path, interrupts=(5, operation))
    assert status == (EXIT_INTERRUPTED if operation == 10_000 else EXIT_AT_ONCE), text
    assert "Traceback" not in text
    assert "was not saved" not in text  # it is no disk error
    assert_clean(tmp_path / "run")
    assert total(tmp_path / "run") in (3, 5)
    assert train([*argv, "--continue_train"], tmp_path)[0] == 0


@pytest.mark.parametrize(("operation", "expected"), [(20, EXIT_AT_ONCE), (10_000, 75)])
def test_ctrl_c_until_the_end_of_the_process(operation, expected, argv, tmp_path):
    plan = {"tiny": True, "interrupts": (5, operation)}
    work = json.dumps([[str(word) for word in argv], plan, str(tmp_path / "output")])
    status = subprocess.run([sys.executable, "-c", ALONE, work], cwd=ROOT).returncode
    text = (tmp_path / "output").read_text()
    assert status == expected, text
    assert "Traceback" not in text
    assert "gnored" not in text
    assert_clean(tmp_path / "run")


def test_a_storm_of_ctrl_c_leaves_no_half_files(argv, tmp_path):
    child = Child([*argv, "--niter", 10**6], {"tiny": True}, tmp_path / "output")
    child.wait_for(tmp_path / "run" / "latest_state.pth")
    while child.process.is_alive():  # the second one usually interrupts the save of the first
        child.kill(signal.SIGINT)
    assert child.wait() in (EXIT_AT_ONCE, EXIT_INTERRUPTED), child.text()[-2000:]
    assert "Traceback" not in child.text()
    assert_clean(tmp_path / "run")


def test_a_thread_that_starts_late_does_not_bring_a_removed_file_back(tmp_path):
    """Ctrl-C while torch.save's thread starts: the main thread does not know of it yet."""
    with pytest.raises(FileNotFoundError):
        checkpoint._write_tensors(tmp_path / "state.tmp", {"a": 1})
    assert not list(tmp_path.iterdir())


def test_what_was_being_written_when_no_clean_up_could_run_is_removed_on_the_way_out(tmp_path):
    half = replacing(tmp_path / "a.json")
    temporary = half.__enter__()  # as if Ctrl-C came before the block began
    assert list(tmp_path.iterdir()) == [temporary]

    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        run_main(main)
    assert not list(tmp_path.iterdir())
