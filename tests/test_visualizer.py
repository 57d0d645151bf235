"""A whole run: what its logs, pages and curves hold, also after a resume and on a full disk."""

import errno
import json
import math
import re
import sys

import numpy as np
import pytest
import torch

from tests.helpers import make_visualizer
from util.show import training_page
from util.show.sinks import MAX_POINTS
from util.show.visualizer import Visualizer

LRS = {"G": 2e-4, "D": 2e-5}


def _picture(shade: int = 0) -> np.ndarray:
    return np.full((16, 11, 3), shade % 256, np.uint8)


def _train(visualizer: Visualizer, start: int, end: int) -> None:
    """Steps of 10 samples with a loss that depends on the position only."""
    for total in range(start + 10, end + 10, 10):
        epoch, done = (total - 1) // 100 + 1, (total - 1) % 100 + 1
        visualizer.progress(epoch, done, total)
        losses = {"G": 1 / total, "D": math.sin(total)}
        visualizer.log_losses(epoch, done, total, losses, LRS)
        if total % 50 == 0:
            visualizer.show({"fake": _picture(total)}, epoch, total)
        if total % 100 == 0:
            visualizer.log_metrics({"SSIM": total / 1000}, epoch, total)


def _scalars(folder) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, round(event.value, 6)) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_gets_losses_rates_and_metrics_over_samples(tmp_path):
    visualizer = make_visualizer(tmp_path, no_tensorboard=False, no_html=True)
    _train(visualizer, 0, 100)
    visualizer.close()
    scalars = _scalars(tmp_path / "tensorboard")
    assert set(scalars) == {"Loss/G", "Loss/D", "LR/G", "LR/D", "Metric/SSIM"}
    assert scalars["Loss/G"] == [(t, round(1 / t, 6)) for t in range(10, 110, 10)]
    assert scalars["LR/D"][0] == (10, 2e-5)
    assert scalars["Metric/SSIM"] == [(100, 0.1)]


def test_tensorboard_hides_what_came_after_the_checkpoint(tmp_path):
    first = make_visualizer(tmp_path, no_tensorboard=False, no_html=True)
    _train(first, 0, 50)
    state = first.state_dict()
    _train(first, 50, 90)
    first.close()
    second = make_visualizer(tmp_path, no_tensorboard=False, no_html=True)
    second.load_state_dict(state)
    _train(second, 50, 70)
    second.close()
    steps = [step for step, _ in _scalars(tmp_path / "tensorboard")["Loss/G"]]
    assert steps == [10, 20, 30, 40, 50, 60, 70]


def _logged(folder) -> tuple[str, dict, set[str], str]:
    log = re.sub(r"time: [\d.]+", "", (folder / "loss_log.txt").read_text())
    page = (folder / "web" / "index.html").read_text()
    page = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "", page)
    images = {path.name for path in (folder / "web" / "images").iterdir()}
    return log, json.loads((folder / "web" / "history.json").read_text()), images, page


@pytest.mark.parametrize("cut", [50, 130, 200])
def test_a_run_that_was_cut_off_and_resumed_logs_the_same_as_one_that_was_not(tmp_path, cut):
    whole = make_visualizer(tmp_path / "whole")
    _train(whole, 0, 300)
    whole.close()

    first = make_visualizer(tmp_path / "cut")
    _train(first, 0, cut)
    torch.save(first.state_dict(), tmp_path / "state.pth")
    _train(first, cut, cut + 60)  # lost: the process is killed before the next checkpoint
    second = make_visualizer(tmp_path / "cut")
    second.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    _train(second, cut, 300)
    second.close()

    assert second.state_dict() == whole.state_dict()
    assert _logged(tmp_path / "cut") == _logged(tmp_path / "whole")


def test_the_training_page_lists_results_newest_first_with_epochs_and_curves(tmp_path):
    visualizer = make_visualizer(tmp_path)
    _train(visualizer, 0, 200)
    text = (tmp_path / "web" / "index.html").read_text()
    headings = re.findall(r"<b>(Epoch .*?)</b>", text)
    assert headings == [
        "Epoch 2, 200 samples",
        "Epoch 2, 150 samples",
        "Epoch 1, 100 samples",
        "Epoch 1, 50 samples",
    ]
    assert text.count("<svg") == 5  # SSIM, two losses, two rates
    assert 'http-equiv="refresh"' in text
    visualizer.close()
    assert 'http-equiv="refresh"' not in (tmp_path / "web" / "index.html").read_text()


def test_old_results_are_thinned_to_one_an_epoch_and_their_files_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(training_page, "KEEP_RECENT", 4)
    monkeypatch.setattr(training_page, "KEEP_OLD", 6)
    visualizer = make_visualizer(tmp_path)
    for total in range(10, 310, 10):  # three an epoch
        visualizer.show({"fake": _picture(), "source": _picture()}, (total - 10) // 30 + 1, total)
    text = (tmp_path / "web" / "index.html").read_text()
    shown = set(re.findall(r'src="images/(.*?)"', text))
    assert shown == {path.name for path in (tmp_path / "web" / "images").iterdir()}
    totals = [int(t) for t in re.findall(r"<b>Epoch \d+, (\d+) samples</b>", text)]
    assert totals[:4] == [300, 290, 280, 270]
    assert all(total % 30 == 0 or total == 260 for total in totals[4:])
    assert len(totals) <= 10


def test_names_of_pictures_cannot_leave_the_folder_or_collide(tmp_path):
    visualizer = make_visualizer(tmp_path)
    visualizer.show({"../../x": _picture(1), "______x": _picture(2)}, 1, 10)
    images = sorted(path.name for path in (tmp_path / "web" / "images").iterdir())
    assert images == ["0000000010_1_______x.jpg", "0000000010_2_______x.jpg"]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"entries": [{"epoch": 1}]}',
        '{"entries": [{"epoch": 1, "total_samples": 9, "pictures": [["a", "../../x.jpg", 1, 1]]}]}',
    ],
)
def test_a_damaged_history_file_costs_one_warning(tmp_path, capsys, content):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "history.json").write_text(content)
    visualizer = make_visualizer(tmp_path)
    visualizer.show({"fake": _picture()}, 1, 10)
    assert capsys.readouterr().err.count("warning:") == 1
    assert "Epoch 1, 10 samples" in (tmp_path / "web" / "index.html").read_text()


def test_a_full_disk_costs_one_warning_a_log_and_the_run_goes_on(tmp_path, capsys, monkeypatch):
    visualizer = make_visualizer(tmp_path)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("util.show.sinks.open", full, raising=False)
        disk.setattr("util.show.training_page.save_image", full)
        disk.setattr("util.show.training_page.write_page", full)
        _train(visualizer, 0, 200)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2
    assert all("No space left on device" in line for line in warnings)
    _train(visualizer, 200, 250)  # there is space again
    assert "total_iters: 250," in (tmp_path / "loss_log.txt").read_text()
    assert "Epoch 3, 250 samples" in (tmp_path / "web" / "index.html").read_text()


def test_a_missing_package_is_one_sentence_and_the_run_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "visdom", None)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    visualizer = make_visualizer(tmp_path, no_tensorboard=False, display_id=1)
    _train(visualizer, 0, 100)
    visualizer.close()
    warnings = capsys.readouterr().err.splitlines()
    assert ["tensorboard" in warnings[0], "visdom" in warnings[1]] == [True, True]
    assert len(warnings) == 2


def test_the_other_processes_write_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    visualizer = Visualizer()
    for _ in visualizer.throughput.timed([1]):
        _train(visualizer, 0, 100)
    visualizer.message("saved")
    visualizer.load_state_dict(visualizer.state_dict())
    visualizer.close()
    assert list(tmp_path.iterdir()) == []
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_memory_of_a_long_run_is_bounded(tmp_path):
    visualizer = make_visualizer(tmp_path, no_html=True)
    sizes = []
    for total in range(1, 5001):
        visualizer.progress(1, total, total)
        visualizer.log_losses(1, total, total, {"G": 1.0, "D": 2.0}, LRS)
        if total % 2500 == 0:
            sizes.append(len(json.dumps(visualizer.state_dict())))
    assert max(sizes) < 4 * MAX_POINTS * 2 * 12
