"""Commands work whatever their output leads to, and whatever folder they are started in."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from util.run.main import explain

PRINTS = """
import sys
from pathlib import Path
from util.run.main import run_main
def main():
    for i in range(200000):
        print("line", i, "\\u7d50\\u679c")
    print("notes", file=sys.stderr)
    Path(sys.argv[1]).write_text("done")
run_main(main)
"""


def start(command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """Run a line of bash; ``$PYTHON`` is this Python."""
    variables = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=cwd, env=variables, capture_output=True
    )


@pytest.mark.parametrize(
    "ending",
    ["| head -1", ">&-", "2>&-", ">&- 2>&- <&-", "> out.txt"],
    ids=["reader ends", "stdout closed", "stderr closed", "all closed", "a file"],
)
def test_work_goes_on_whatever_becomes_of_the_output(ending, tmp_path):
    (tmp_path / "prints.py").write_text(PRINTS)
    done = start(f"$PYTHON prints.py result {ending}", tmp_path, PYTHONIOENCODING="ascii")
    assert (tmp_path / "result").read_text() == "done"
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_on_a_full_disk_does_not_change_the_status_of_a_mistake():
    assert start("$PYTHON -m script.overview --results none -o x.png 2> /dev/full").returncode == 2


def test_letters_that_a_terminal_cannot_show_appear_as_codes(tmp_path):
    (tmp_path / "prints.py").write_text(PRINTS.replace("200000", "1"))
    done = start("$PYTHON prints.py result", tmp_path, PYTHONIOENCODING="latin-1")
    assert done.stdout == b"line 0 \\u7d50\\u679c\n"


def test_help_for_a_reader_that_ends_early_is_quiet():
    done = start("$PYTHON -m script.overview --help | head -1")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "command", [f"$PYTHON {ROOT}/script/overview.py", "$PYTHON -m script.overview"]
)
@pytest.mark.parametrize("how", ["", "-OO"])
def test_a_command_starts_in_a_folder_with_its_own_util_and_without_docstrings(
    command, how, tmp_path
):
    (tmp_path / "util").mkdir()
    (tmp_path / "util" / "__init__.py").write_text("raise RuntimeError('not ours')")
    command = command.replace("$PYTHON", f"$PYTHON {how}")
    done = start(f"{command} --help", tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert b"--results" in done.stdout


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
         "the memory is exhausted"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory is exhausted"),
        (RuntimeError("unable to write to file </torch_42_7>: No space left on device (28)"),
         "shared memory"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>"), "--shm-size"),
        (OSError(errno.EMFILE, "Too many open files", "a.png"), "ulimit -n"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), "at most 255 bytes"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "rename it"),
        (OSError(errno.ENOSPC, "No space left on device"), "a file could not be read or written"),
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_a_sentence_with_advice_that_fits(error, words):
    assert words in explain(error)
    assert "--continue_train" not in explain(error)  # this is no training


def test_a_semaphore_without_room_is_a_matter_of_shared_memory(monkeypatch):
    import multiprocessing.synchronize

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(multiprocessing.synchronize._multiprocessing, "SemLock", full)
    with pytest.raises(OSError) as caught:
        multiprocessing.get_context("spawn").Lock()
    assert "shared memory" in explain(caught.value)
