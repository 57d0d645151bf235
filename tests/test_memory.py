"""A training needs no more memory and no more open files the longer it lasts."""

import sys

import pytest

import train as train_command
from models.training import TrainingRun
from tests import reliability_rss
from tests.training_child import SMALL, TinyModel, write_tiny_data

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def curve(tmp_path, monkeypatch):
    """A function (pairs, epochs, every) -> [(step, MiB, open files)] of a training of tiny nets."""

    def measure(pairs: int, epochs: int, every: int, *more: object):
        data = write_tiny_data(tmp_path / "data", pairs=pairs)
        argv = ["--dataroot", data, "--checkpoints_dir", tmp_path, "--name", "run", *SMALL]
        argv += ["--loadSize", 8, "--old_size", 8, "--niter", epochs, "--niter_decay", 0, *more]
        argv = [a for a in argv if a not in ("--no_html", "--no_tensorboard", "--deterministic")]
        rows: list[tuple[int, float, int]] = []
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, argv)])
        monkeypatch.setattr(train_command, "create_model", TinyModel)
        monkeypatch.setattr(TrainingRun, "watch", TrainingRun.watch)  # restored afterwards
        reliability_rss.watch_steps(lambda *row: rows.append(row), every)
        assert train_command.main() == 0
        return rows

    return measure


@pytest.mark.parametrize("workers", [0, 2])
def test_the_number_of_open_files_is_the_same_in_every_epoch(workers, curve):
    options = ["--nThreads", workers, "--display_freq", 2, "--save_latest_freq", 3]
    rows = curve(8, 4, 8, *options)
    assert [step for step, _, _ in rows] == [8, 16, 24, 32]
    files = [count for _, _, count in rows]
    assert files[1] == files[2] == files[3]
    before = reliability_rss.open_files()
    assert before <= files[1]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_does_not_grow_over_two_thousand_steps(workers, curve, capsys):
    options = ["--nThreads", workers, "--display_freq", 20, "--save_latest_freq", 50]
    rows = curve(50, 40, 100, *options)
    with capsys.disabled():
        for step, memory, files in rows:
            print(f"step {step:6} {memory:9.1f} MiB {files:4} files")
    assert rows[-1][0] == 2000
    warm = max(memory for step, memory, _ in rows if 400 <= step <= 800)
    late = max(memory for step, memory, _ in rows if step > 1600)
    assert late - warm < 12  # MiB
    assert len({files for step, _, files in rows if step > 200}) == 1
