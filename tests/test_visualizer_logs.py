"""The text log of losses, and the curves of a run."""

import math
import re

import pytest

from util.show.sinks import MAX_POINTS, Curve, Losses, LossHistory, LossLog
from util.show.training_page import chart


def record(total: int = 40, **changes) -> Losses:
    """The losses of one iteration."""
    values = {
        "epoch": 3,
        "samples_in_epoch": 20,
        "total_samples": total,
        "losses": {"app_gen_t": 1.23456, "style": 0.0},
        "lrs": {"G": 2e-4, "D": 2e-5},
        "seconds_per_sample": 0.0123456,
    }
    return Losses(**{**values, **changes})


def test_a_line_of_the_loss_log_has_the_published_fields(tmp_path):
    log = LossLog(tmp_path / "loss_log.txt")
    log.losses(record())
    assert (tmp_path / "loss_log.txt").read_text() == (
        "(epoch: 3, iters: 20, total_iters: 40, time: 0.012) app_gen_t: 1.235 style: 0.000 "
        "lr_G: 0.0002000000 lr_D: 0.0000200000\n"
    )


def test_rewinding_drops_later_and_half_written_lines(tmp_path):
    path = tmp_path / "loss_log.txt"
    log = LossLog(path)
    for total in (10, 20, 30):
        log.losses(record(total))
    path.write_text(path.read_text() + "(epoch: 3, it")
    log.rewind(20)
    assert re.findall(r"total_iters: (\d+)", path.read_text()) == ["10", "20"]
    assert path.read_text().endswith("\n")


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
