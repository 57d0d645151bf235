"""The one pool of processes: order, bounds, killed workers, a killed parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from util.errors import UserError
from util.parallel import map_in_order

PARENT = """
import sys, time
from tests.test_parallel import report_and_wait
from util.parallel import map_in_order

if __name__ == "__main__":
    list(map_in_order(report_and_wait, [sys.argv[1]] * 2, 2))
"""


def square(number: int) -> int:
    return number * number


def end_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse_three(number: int) -> int:
    if number == 3:
        raise UserError("three is refused")
    return number


def report_and_wait(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_of_the_items(workers):
    assert list(map_in_order(square, range(40), workers)) == [i * i for i in range(40)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_refusal_in_a_worker_is_the_refusal_of_the_whole(workers):
    with pytest.raises(UserError, match="three is refused"):
        list(map_in_order(refuse_three, range(9), workers))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_worker_is_one_sentence():
    with pytest.raises(UserError, match=r"worker process was killed, .*fewer --workers"):
        list(map_in_order(end_at_three, range(20), 2))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    folder = tmp_path / "workers"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, script, folder], env=environment)
    try:
        workers = _waited(lambda: sorted(p.name for p in folder.iterdir()), lambda w: len(w) == 2)
    finally:
        parent.kill()
        parent.wait()
    assert _waited(lambda: [pid for pid in workers if _alive(pid)], lambda alive: not alive) == []


def _waited(look, enough, seconds: float = 60):
    end = time.monotonic() + seconds
    while not enough(found := look()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _alive(pid: str) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_few_tasks_are_under_way_however_many_there_are():
    taken = []

    def numbers():
        for number in range(2000):
            taken.append(number)
            yield number

    results = map_in_order(square, numbers(), 2)
    assert next(results) == 0
    assert len(taken) < 40
    results.close()
