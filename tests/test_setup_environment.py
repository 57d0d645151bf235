"""The installation that the shell scripts begin with, with a Python that only notes its calls."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="bash")
SCRIPTS = ("quickstart.sh", "train_showcase.sh", "one_budget.sh", "run_tests.sh")
NOTES_ITS_ARGUMENTS = '#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\n'


@pytest.fixture
def project(tmp_path):
    """A fresh clone without anything in it but the scripts and a Python that installs nothing."""
    shutil.copytree(ROOT / "script", tmp_path / "script", ignore=lambda *_: ["__pycache__"])
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "requirements.txt").write_text("pytest\n")
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "ruff", "chromium"):
        (binaries / name).write_text(NOTES_ITS_ARGUMENTS)
        (binaries / name).chmod(0o755)
    (binaries / "activate").write_text(f'PATH="{binaries}:$PATH"\n')
    return tmp_path


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_installs_first_and_its_own_arguments_go_to_the_command_alone(project, script):
    command = ["bash", str(project / "script" / script), "--minutes", "3", "--name", "trial"]
    environment = {**os.environ, "PATH": f"{project / '.venv' / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    calls = (project / ".venv" / "bin" / "calls").read_text().splitlines()
    installed = [line for line in calls if "pip install" in line]
    assert f"-r {project / 'requirements.txt'}" in installed[0]
    assert ("tests/requirements.txt" in installed[0]) == (script == "run_tests.sh")
    assert not any("--minutes" in line for line in installed)
    assert calls[-1].endswith("--minutes 3 --name trial")
