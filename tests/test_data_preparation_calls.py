"""The published command lines of the preparation scripts, run as people run them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_dataset
from tests.tiny_dataset import contents

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def release(tmp_path) -> Path:
    return tiny_dataset.write_release(tmp_path / "fashion")


@pytest.mark.parametrize(
    "command",
    [
        ["script/generate_fashion_datasets.py"],
        ["data/generate_fashion_datasets.py"],
        ["-m", "script.generate_fashion_datasets"],
    ],
)
def test_every_published_call_form_works(release, command):
    arguments = ["--dataroot", str(release), "--workers", "1"]
    result = subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "4 of 4 images" in result.stdout


def test_the_default_data_root_is_the_published_one_below_the_working_folder(release, tmp_path):
    (tmp_path / "dataset").mkdir()
    os.rename(release, tmp_path / "dataset" / "fashion")
    script = ROOT / "script" / "generate_fashion_datasets.py"
    result = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(contents(tmp_path / "dataset" / "fashion" / "train")) == 4


def test_a_mistake_ends_with_status_2_and_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "script/generate_fashion_datasets.py", "--dataroot", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "name",
    [
        "check_dataset", "convert_annotations", "generate_fashion_datasets", "make_pairs",
        "make_synthetic_dataset", "overview", "prepare_data", "prepare_market",
    ],
)  # fmt: skip
def test_commands_that_compute_no_network_start_without_torch(name):
    program = (
        f"import sys; sys.modules['torch'] = None; sys.argv = ['x', '--help']\n"
        f"from script.{name} import main\nmain()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout
