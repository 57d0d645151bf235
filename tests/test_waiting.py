"""Threads that wait leave their core to others: said to OpenMP before torch loads it."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

AT_TORCH = """
import os, runpy, sys
class Watch:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
command, sys.argv = sys.argv[1], ["command", "--help"]
if command.endswith(".py"):
    sys.path[0] = os.path.dirname(os.path.abspath(command))  # as Python itself does
    runpy.run_path(command, run_name="__main__")
else:
    runpy.run_module(command, run_name="__main__")
"""


def policy_when_torch_is_imported(command: str, **environment: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "PYTHONPATH")}
    words, variables = [sys.executable, "-c", AT_TORCH, command], {**inherited, **environment}
    done = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "command", ["train.py", "test.py", "script/export_onnx.py", "script.benchmark"]
)
def test_threads_of_every_command_wait_passively(command):
    assert policy_when_torch_is_imported(command) == "PASSIVE"


def test_the_policy_that_the_user_chose_stays():
    assert policy_when_torch_is_imported("train.py", OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"
    assert policy_when_torch_is_imported("script.attention", OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"
