"""Every command starts where Python lacks what Windows lacks."""

import os
import subprocess
import sys

from tests.conftest import ROOT

HELPS = """
import contextlib, io, os, runpy, signal, sys, traceback
from pathlib import Path
import torch  # looks at the name of the system, so it must find what Linux has
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None  # importing it is an ImportError
for name in ("register_at_fork", "sched_getaffinity"):
    vars(os).pop(name, None)
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "sigwaitinfo", "pthread_sigmask", "setitimer"):
    vars(signal).pop(name, None)
commands = [Path("train.py"), Path("test.py"), *sorted(Path("script").glob("*.py"))]
for path in commands:
    if "run_main(main)" not in path.read_text():
        continue
    printed, sys.argv = io.StringIO(), [str(path), "--help"]
    status = "did not end"
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        status = end.code
    except Exception as error:
        status = f"{error!r} at {traceback.extract_tb(error.__traceback__)[-1]}"
    print(path, status, "usage" in printed.getvalue())
from script.benchmark import peak_memory
from script.gpu_check import at_most
with at_most(1):  # without an alarm
    pass
print("peak memory", peak_memory(torch.device("cpu")))
"""


def test_every_command_starts_without_what_windows_lacks():
    done = subprocess.run(
        [sys.executable, "-c", HELPS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *lines, memory = done.stdout.splitlines()
    assert len(lines) >= 25
    assert [line for line in lines if not line.endswith(" 0 True")] == []
    assert memory == "peak memory 0"
