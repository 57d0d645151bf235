"""The sinks of a training run: terminal, text log, TensorBoard, curves, training page."""

from __future__ import annotations

import errno
import io
import json
import math
import re
import sys

import numpy as np
import pytest
import torch

from util import training_page
from util.console import Console, duration
from util.loss_history import MAX_POINTS, Curve, LossHistory
from util.loss_plot import chart
from util.sinks import Losses, LossLog
from util.throughput import Throughput
from util.visualizer import NullVisualizer, Visualizer

LRS = {"G": 2e-4, "D": 2e-5}


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What stands on the screen: carriage returns go back to the start of a line."""
        out = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            out.append(shown.rstrip())
        return out


def _visualizer(folder, **options) -> Visualizer:
    options = {"epochs": 10, "samples_per_epoch": 100, "stream": io.StringIO(), **options}
    return Visualizer(folder, "run", **{"use_tensorboard": False, **options})


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


def _record(total: int = 40, **changes) -> Losses:
    values = {
        "epoch": 3,
        "samples_in_epoch": 20,
        "total_samples": total,
        "losses": {"app_gen_t": 1.23456, "style": 0.0},
        "lrs": LRS,
        "seconds_per_sample": 0.0123456,
        "data_share": 0.1,
    }
    return Losses(**{**values, **changes})


# Throughput


def test_rates_and_the_share_of_waiting_follow_the_clock():
    clock = Clock()
    speed = Throughput(clock)

    def loader():
        for _ in range(6):
            clock.now += 0.3
            yield None

    assert speed.seconds_left(1000) is None
    for number, _ in enumerate(speed.timed(loader()), 1):
        clock.now += 0.7
        speed.count(4 * number)
    assert speed.seconds_per_sample == pytest.approx(0.25)
    assert speed.samples_per_second == pytest.approx(4.0)
    assert speed.data_share == pytest.approx(0.3)
    assert speed.seconds_left(1024) == pytest.approx(250.0)


def test_the_slow_first_iteration_does_not_count_for_the_time_left():
    clock = Clock()
    speed = Throughput(clock)
    clock.now += 1000
    speed.count(10)
    clock.now += 1
    speed.count(20)
    assert speed.seconds_left(120) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "--:--"), (0, "0:00:00"), (3723.4, "1:02:03"), (300_000, "3d 11:20")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


# Console


def test_a_terminal_shows_one_line_that_is_redrawn(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    stream, clock = Terminal(), Clock()
    console = Console(10, 100, Throughput(), stream, clock)
    for step in range(1, 50):
        clock.now += 1
        console.progress(3, step, 200 + step)
    console.losses(_record())
    console.message("saved latest")
    clock.now += 1
    console.progress(3, 51, 251)
    console.close()
    saved, live, rest = stream.lines()
    assert saved == "saved latest"
    for part in ("epoch 3/10", "51/100 (51%)", "img/s", "waiting for data", "left", "G 2.00e-04"):
        assert part in live
    assert "app_gen_t 1.235" in live
    assert rest == ""


def test_the_live_line_is_redrawn_at_most_five_times_a_second():
    stream, clock = Terminal(), Clock()
    console = Console(10, 100, Throughput(), stream, clock)
    for step in range(100):
        clock.now += 0.01
        console.progress(1, step, step)
    assert 5 <= stream.getvalue().count("\r") <= 6


def test_the_live_line_fits_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    console = Console(10, 100, Throughput(), stream, Clock())
    console.losses(_record())
    assert len(stream.getvalue().lstrip("\r")) <= 39


def test_a_file_gets_one_line_a_print_interval():
    stream = io.StringIO()
    console = Console(10, 100, Throughput(), stream)
    for step in range(100):
        console.progress(1, step, step)
    assert stream.getvalue() == ""
    console.losses(_record())
    console.losses(_record())
    console.close()
    assert len(stream.getvalue().splitlines()) == 2
    assert "\r" not in stream.getvalue()


def test_a_slow_loader_is_named_once():
    stream = io.StringIO()
    console = Console(10, 100, Throughput(), stream)
    for _ in range(3):
        console.losses(_record(data_share=0.8))
    assert stream.getvalue().count("--nThreads") == 1


def test_text_that_the_terminal_cannot_show_does_not_stop_the_run():
    raw = io.BytesIO()
    console = Console(1, 1, Throughput(), io.TextIOWrapper(raw, encoding="ascii"))
    console.message("größer")
    assert raw.getvalue() == b"gr??er\n"


# loss_log.txt


def test_a_line_of_the_loss_log_has_the_published_fields(tmp_path):
    log = LossLog(tmp_path / "loss_log.txt")
    log.losses(_record())
    assert (tmp_path / "loss_log.txt").read_text() == (
        "(epoch: 3, iters: 20, total_iters: 40, time: 0.012) app_gen_t: 1.235 style: 0.000 "
        "lr_G: 0.0002000000 lr_D: 0.0000200000\n"
    )


def test_the_loss_log_is_rotated_and_bounded(tmp_path):
    log = LossLog(tmp_path / "loss_log.txt", max_bytes=1000)
    for total in range(200):
        log.losses(_record(total))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files[-2:] == ["loss_log.txt.1", "loss_log.txt.2"]
    assert len(files) <= 3
    assert all(path.stat().st_size < 1200 for path in tmp_path.iterdir())
    newest = "".join(
        path.read_text()
        for path in (tmp_path / "loss_log.txt.1", tmp_path / "loss_log.txt")
        if path.exists()
    )
    assert "total_iters: 199," in newest


def test_rewinding_drops_later_and_half_written_lines(tmp_path):
    path = tmp_path / "loss_log.txt"
    log = LossLog(path)
    for total in (10, 20, 30):
        log.losses(_record(total))
    path.write_text(path.read_text() + "(epoch: 3, it")
    log.rewind(20)
    assert re.findall(r"total_iters: (\d+)", path.read_text()) == ["10", "20"]
    assert path.read_text().endswith("\n")


# Curves


def test_curves_are_bounded_and_keep_their_ends_and_mean():
    history = LossHistory()
    count = 10 * MAX_POINTS
    for total in range(1, count + 1):
        history.append("Loss", {"G": total}, total)
    curve = history.group("Loss")["G"]
    assert len(curve.values) == len(curve.samples) <= MAX_POINTS
    assert curve.samples == sorted(set(curve.samples))
    assert curve.samples[-1] == curve.values[-1] == count
    errors = [sample - value for sample, value in zip(curve.samples, curve.values, strict=True)]
    assert 0 <= min(errors) <= max(errors) < count / 2


def test_values_that_are_not_finite_stay_gaps_and_do_not_spread():
    history = LossHistory()
    for total in range(MAX_POINTS + 1):
        history.append("Loss", {"G": math.nan if total < 3 else 1.0}, total)
    values = history.group("Loss")["G"].values
    assert math.isnan(values[0])
    assert set(values[1:]) == {1.0}


@pytest.mark.parametrize(
    "values",
    [
        [],
        [math.nan],
        [1.0],
        [0.0, 0.0],
        [-1.0, 2.0],
        [1e-9, 1e9],
        [1.0, math.inf, 2.0],
        [5e-324, 1e308],
        [-1e308, 1e308, 1.0],
        [1e-300, 1e-200],
    ],
    ids=str,
)
def test_every_curve_can_be_drawn_inside_its_frame(values):
    curve = Curve()
    for total, value in enumerate(values):
        curve.append(total, value)
    text = chart(curve, "G").render()
    assert "nan" not in text
    assert "inf" not in text
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", text):
        assert 0 <= float(x) <= 340
        assert 0 <= float(y) <= 180


# TensorBoard


def _scalars(folder) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, round(event.value, 6)) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_gets_losses_rates_and_metrics_over_samples(tmp_path):
    visualizer = _visualizer(tmp_path, use_tensorboard=True, use_html=False)
    _train(visualizer, 0, 100)
    visualizer.close()
    scalars = _scalars(tmp_path / "tensorboard")
    assert set(scalars) == {"Loss/G", "Loss/D", "LR/G", "LR/D", "Metric/SSIM"}
    assert scalars["Loss/G"] == [(t, round(1 / t, 6)) for t in range(10, 110, 10)]
    assert scalars["LR/D"][0] == (10, 2e-5)
    assert scalars["Metric/SSIM"] == [(100, 0.1)]


def test_tensorboard_hides_what_came_after_the_checkpoint(tmp_path):
    first = _visualizer(tmp_path, use_tensorboard=True, use_html=False)
    _train(first, 0, 50)
    state = first.state_dict()
    _train(first, 50, 90)
    first.close()
    second = _visualizer(tmp_path, use_tensorboard=True, use_html=False, resume=True)
    second.load_state_dict(state)
    _train(second, 50, 70)
    second.close()
    steps = [step for step, _ in _scalars(tmp_path / "tensorboard")["Loss/G"]]
    assert steps == [10, 20, 30, 40, 50, 60, 70]


# The whole


def _logged(folder) -> tuple[str, dict, set[str], str]:
    log = re.sub(r"time: [\d.]+", "", (folder / "loss_log.txt").read_text())
    page = (folder / "web" / "index.html").read_text()
    page = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "", page)
    images = {path.name for path in (folder / "web" / "images").iterdir()}
    return log, json.loads((folder / "web" / "history.json").read_text()), images, page


@pytest.mark.parametrize("cut", [50, 130, 200])
def test_a_run_that_was_cut_off_and_resumed_logs_the_same_as_one_that_was_not(tmp_path, cut):
    whole = _visualizer(tmp_path / "whole")
    _train(whole, 0, 300)
    whole.close()

    first = _visualizer(tmp_path / "cut")
    _train(first, 0, cut)
    torch.save(first.state_dict(), tmp_path / "state.pth")
    _train(first, cut, cut + 60)  # lost: the process is killed before the next checkpoint
    second = _visualizer(tmp_path / "cut", resume=True)
    second.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    _train(second, cut, 300)
    second.close()

    assert second.state_dict() == whole.state_dict()
    assert _logged(tmp_path / "cut") == _logged(tmp_path / "whole")


def test_the_training_page_lists_results_newest_first_with_epochs_and_curves(tmp_path):
    visualizer = _visualizer(tmp_path)
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
    visualizer = _visualizer(tmp_path)
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
    visualizer = _visualizer(tmp_path)
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
    visualizer = _visualizer(tmp_path, resume=True)
    visualizer.show({"fake": _picture()}, 1, 10)
    assert capsys.readouterr().err.count("warning:") == 1
    assert "Epoch 1, 10 samples" in (tmp_path / "web" / "index.html").read_text()


def test_a_full_disk_costs_one_warning_a_log_and_the_run_goes_on(tmp_path, capsys, monkeypatch):
    visualizer = _visualizer(tmp_path)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("util.sinks.open", full, raising=False)
        disk.setattr("util.training_page.save_image", full)
        disk.setattr("util.training_page.write_page", full)
        _train(visualizer, 0, 200)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2
    assert all("No space left on device" in line for line in warnings)
    _train(visualizer, 200, 250)  # there is space again
    assert "total_iters: 250," in (tmp_path / "loss_log.txt").read_text()
    assert "Epoch 3, 250 samples" in (tmp_path / "web" / "index.html").read_text()


def test_a_missing_package_is_one_sentence_and_the_run_goes_on(tmp_path, capsys, monkeypatch):
    from util.visdom_client import VisdomSettings

    monkeypatch.setitem(sys.modules, "visdom", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    visualizer = _visualizer(tmp_path, use_tensorboard=True, visdom=VisdomSettings())
    _train(visualizer, 0, 100)
    visualizer.close()
    warnings = capsys.readouterr().err.splitlines()
    assert ["tensorboard" in warnings[0], "visdom" in warnings[1]] == [True, True]
    assert len(warnings) == 2


def test_the_other_processes_write_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    visualizer = NullVisualizer()
    for _ in visualizer.timed([1]):
        _train(visualizer, 0, 100)
    visualizer.message("saved")
    visualizer.load_state_dict(visualizer.state_dict())
    visualizer.close()
    assert list(tmp_path.iterdir()) == []
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_the_null_visualizer_has_every_method_of_the_real_one():
    public = {name for name in vars(Visualizer) if not name.startswith("_")}
    assert public == {name for name in dir(NullVisualizer) if not name.startswith("_")}


def test_memory_of_a_long_run_is_bounded(tmp_path):
    visualizer = _visualizer(tmp_path, use_html=False)
    sizes = []
    for total in range(1, 5001):
        visualizer.progress(1, total, total)
        visualizer.log_losses(1, total, total, {"G": 1.0, "D": 2.0}, LRS)
        if total % 2500 == 0:
            sizes.append(len(json.dumps(visualizer.state_dict())))
    assert max(sizes) < 4 * MAX_POINTS * 2 * 12
