"""How far a long piece of work has come, on a terminal and in a file."""

import io
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from util.run import progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_that_is_redrawn(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress.progress_bar(range(5), "generate", unit="batch")) == [0, 1, 2, 3, 4]
    assert "\r" in stream.getvalue()
    assert "generate" in stream.getvalue()


def test_a_file_gets_a_line_now_and_then_and_is_never_redrawn(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    assert sum(progress.progress_bar(range(5), "generate", unit="batch")) == 10
    assert "\r" not in stream.getvalue()
    lines = stream.getvalue().splitlines()
    assert len(lines) >= 2
    assert "5/5" in lines[-1]
    assert all(line.startswith("generate: ") for line in lines)


@pytest.mark.parametrize("stream", [io.StringIO(), None], ids=["file", "closed"])
def test_work_that_is_done_soon_leaves_no_line(monkeypatch, stream):
    monkeypatch.setattr("sys.stderr", stream)
    with progress.progress_bar(total=3, desc="pairs") as bar:
        bar.update(3)
    assert stream is None or stream.getvalue() == ""


def test_every_bar_follows_this_policy():
    paths = [
        p for folder in ("util", "data", "script", "models") for p in (ROOT / folder).rglob("*.py")
    ]
    own = Path("util/run/progress.py")
    offenders = [
        p.relative_to(ROOT)
        for p in (*paths, ROOT / "test.py", ROOT / "train.py", ROOT / "api.py")
        if re.search(r"\btqdm\b", p.read_text()) and p.relative_to(ROOT) != own
    ]
    assert offenders == []
