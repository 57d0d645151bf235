"""The live progress line, and the rates it shows."""

import io
from types import SimpleNamespace

import pytest

from tests.test_visualizer_logs import record
from util.show.visualizer import Console, Throughput, duration


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Seconds that pass only when told."""
    made = SimpleNamespace(now=100.0)
    monkeypatch.setattr("util.show.visualizer.time.perf_counter", lambda: made.now)
    return made


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


def test_rates_and_the_share_of_waiting_follow_the_clock(clock):
    speed = Throughput()

    def loader():
        for _ in range(6):
            clock.now += 0.3
            yield None

    assert speed.seconds_left(1000) is None
    for number, _ in enumerate(speed.timed(loader()), 1):
        clock.now += 0.7
        speed.count(4 * number)
    assert speed.seconds_per_sample == pytest.approx(0.25)
    assert speed.data_share == pytest.approx(0.3)
    assert speed.seconds_left(1000) == pytest.approx(250.0)


def test_the_slow_first_iteration_does_not_count_for_the_time_left(clock):
    speed = Throughput()
    clock.now += 1000
    speed.count(10)
    clock.now += 1
    speed.count(20)
    assert speed.seconds_left(100) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "--:--"), (0, "0:00:00"), (3723.4, "1:02:03"), (300_000, "3 days, 11:20:00")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_a_terminal_keeps_the_lines_of_losses_above_one_line_that_is_redrawn(monkeypatch, clock):
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    console = Console(10, 100, stream)
    for step in range(1, 50):
        clock.now += 1
        console.progress(3, step)
    console.losses(record())
    console.message("saved latest")
    clock.now += 1
    console.progress(3, 51)
    console.close()
    losses, saved, live, rest = stream.lines()
    assert "epoch 3/10 20/100 (20%)" in losses
    assert losses.endswith("lr G 2.00e-04 D 2.00e-05 | app_gen_t 1.235 style 0.000")
    assert saved == "saved latest"
    for part in ("epoch 3/10", "51/100 (51%)", "img/s", "waiting for data", "left"):
        assert part in live
    assert rest == ""


def test_the_live_line_is_redrawn_at_most_five_times_a_second(clock):
    stream = Terminal()
    console = Console(10, 100, stream)
    for step in range(100):
        clock.now += 0.01
        console.progress(1, step)
    assert 5 <= stream.getvalue().count("\r") <= 6


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_narrow_terminal_shows_every_loss_in_full(monkeypatch, columns, clock):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    console = Console(10, 100, stream)
    losses = {f"loss_number_{i}": i + 0.25 for i in range(12)}
    console.losses(record(losses=losses))
    clock.now += 1
    console.progress(3, 21)
    *lines, live = stream.lines()
    assert all(len(line) < columns for line in (*lines, live))
    for name, value in losses.items():
        assert any(f"{name} {value:.3f}" in line for line in lines)
    assert live.startswith("epoch 3/10 21/100 (21%) | --:-- left")


def test_a_file_gets_one_line_a_print_interval():
    stream = io.StringIO()
    console = Console(10, 100, stream)
    for step in range(100):
        console.progress(1, step)
    assert stream.getvalue() == ""
    console.losses(record())
    console.losses(record())
    console.close()
    assert len(stream.getvalue().splitlines()) == 2
    assert "\r" not in stream.getvalue()


def test_a_slow_loader_is_named_once(clock):
    stream = io.StringIO()
    console = Console(10, 100, stream)

    def loader():
        for _ in range(3):
            clock.now += 0.8
            yield None

    for number, _ in enumerate(console.throughput.timed(loader()), 1):
        clock.now += 0.2
        console.throughput.count(4 * number)
        console.losses(record())
    assert stream.getvalue().count("Waiting for data takes 80% of the time") == 1
    assert stream.getvalue().count("--nThreads") == 1
