"""Live windows, against a real visdom server."""

import json
import re
import socket
import threading
import time

import numpy as np
import pytest

from tests.helpers import make_visualizer
from tests.visdom_server import VisdomServer
from util.show.sinks import LossHistory
from util.show.visdom import VisdomLog, environment_of, server_address
from util.show.visualizer import Visualizer

visdom = pytest.importorskip("visdom", reason="the visdom package is not installed")

WAIT_SECONDS = 120  # only a failure waits so long

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:visdom")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with VisdomServer(tmp_path_factory.mktemp("visdom")) as running:
        yield running


def _visualizer(folder, port: int, env: str = "main", display_id: int = 1) -> Visualizer:
    settings = {"display_port": port, "display_env": env, "display_id": display_id}
    return make_visualizer(folder, 2, no_html=True, **settings)


def _step(visualizer: Visualizer, total: int) -> None:
    losses = {"G": 1 / total, "<i>D</i>": float("nan")}
    visualizer.log_losses(1, total, total, losses, {"G": 2e-4, "D": 2e-5})


def _windows(server: VisdomServer, env: str) -> dict:
    client = visdom.Visdom("http://127.0.0.1", port=server.port, use_incoming_socket=False)
    return json.loads(client.get_window_data(env=env) or "{}")


def _eventually(condition) -> bool:
    """True as soon as the condition holds; False when it never does."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_windows_for_losses_rates_metrics_and_pictures_arrive(tmp_path, server):
    visualizer = _visualizer(tmp_path, server.port, display_id=7, env="arrive")
    for total in (10, 20, 30):
        _step(visualizer, total)
    visualizer.log_metrics({"SSIM": 0.7}, 1, 30)
    visualizer.show({"fake target": np.full((64, 32, 3), 90, np.uint8)}, 1, 30)
    visualizer.close()
    windows = _windows(server, "arrive")
    assert set(windows) == {"7_losses", "7_learning_rates", "7_metrics", "7_fake_target"}
    curves = windows["7_losses"]["content"]["data"]
    assert [curve["name"] for curve in curves] == ["G", "&lt;i&gt;D&lt;/i&gt;"]
    assert curves[0]["x"] == [10, 20, 30]
    assert curves[0]["y"] == pytest.approx([1 / 10, 1 / 20, 1 / 30])
    assert windows["7_fake_target"]["content"]["src"].startswith("data:image/jpeg")
    assert "epoch 1, 30 samples" in windows["7_fake_target"]["content"]["caption"]


def test_an_environment_name_cannot_break_the_address(tmp_path, server):
    visualizer = _visualizer(tmp_path, server.port, env="../my run?/#1")
    _step(visualizer, 10)
    visualizer.close()
    name = environment_of("../my run?/#1")
    assert name.startswith("-my-run---1-")
    assert "1_losses" in _windows(server, name)


def test_names_that_visdom_cannot_hold_stay_different():
    names = [environment_of(name) for name in ("実験一", "実験二", "main", "a b", "a-b")]
    assert len(set(names)) == 5
    assert names[2] == "main"
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in names)


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("http://localhost", ("http://localhost", 8096)),
        ("gpu.example.org", ("http://gpu.example.org", 8096)),
        ("gpu.example.org:8097", ("http://gpu.example.org", 8097)),
        ("https://gpu.example.org:443/", ("https://gpu.example.org", 443)),
        ("http://[::1]:9000", ("http://[::1]", 9000)),
    ],
)
def test_a_port_in_the_address_counts_and_appears_once(server, address):
    assert server_address(server, 8096) == address


def test_an_absent_server_costs_one_warning_and_the_log_goes_on(tmp_path, capsys):
    with socket.socket() as closed:  # a port on which nobody listens
        closed.bind(("127.0.0.1", 0))
        visualizer = _visualizer(tmp_path, closed.getsockname()[1])
        for total in range(10, 60, 10):
            _step(visualizer, total)
        warned = []
        assert _eventually(lambda: warned.append(capsys.readouterr().err) or "".join(warned))
        visualizer.close()
    text = "".join(warned) + capsys.readouterr().err
    assert text.count("warning: no visdom server answers") == 1
    assert len(text.splitlines()) == 1
    assert len((tmp_path / "loss_log.txt").read_text().splitlines()) == 5


def test_a_killed_server_costs_one_warning_and_gets_everything_when_it_is_back(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("util.show.visdom.RETRY_SECONDS", 0.05)
    with VisdomServer(tmp_path) as server:
        history, warnings = LossHistory(), []
        log = VisdomLog("127.0.0.1", server.port, 1, "killed", history, warnings.append)

        def step(total: int) -> None:
            history.append("Loss", {"G": 1.0}, total)
            log.losses(None)
            log.pictures(1, total, {"fake": np.zeros((8, 8, 3), np.uint8)}, ())

        step(10)
        assert _eventually(lambda: set(_windows(server, "killed")) == {"1_losses", "1_fake"})
        server.kill()
        for total in range(20, 60, 10):
            step(total)
        assert _eventually(lambda: warnings)
        server.start()

        def samples() -> list[int]:
            window = _windows(server, "killed").get("1_losses")
            return window["content"]["data"][0]["x"] if window else []

        assert _eventually(lambda: samples() == [10, 20, 30, 40, 50])
        log.close()
    assert len(warnings) == 1
    assert "no visdom server answers" in warnings[0]
    assert "Traceback" not in warnings[0]


def test_a_server_that_never_answers_does_not_hold_up_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr("util.show.visdom.READ_SECONDS", 1e6)  # waiting for it would never end
    monkeypatch.setattr("util.show.visdom.CLOSE_SECONDS", 0.1)
    with socket.socket() as mute:  # accepts connections and says nothing
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        visualizer = _visualizer(tmp_path, mute.getsockname()[1])
        for total in range(1, 301):
            _step(visualizer, total)
        visualizer.close()
    assert len((tmp_path / "loss_log.txt").read_text().splitlines()) == 300
    # Closing the socket ends the request, and with it the thread.
    assert _eventually(lambda: all(thread.name != "visdom" for thread in threading.enumerate()))


def test_something_else_on_the_port_is_reported_in_one_warning(tmp_path):
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as other:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = other.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)

        threading.Thread(target=refuse, daemon=True).start()
        history, warnings = LossHistory(), []
        history.append("Loss", {"G": 1.0}, 10)
        log = VisdomLog("127.0.0.1", other.getsockname()[1], 1, "main", history, warnings.append)
        log.losses(None)
        assert _eventually(lambda: warnings)
        log.close()
    assert len(warnings) == 1
    assert "HTTPError" in warnings[0]


def test_a_window_that_visdom_cannot_show_is_not_called_an_absent_server(monkeypatch):
    class Client:
        def line(self, **content):
            raise KeyError("legend")

    monkeypatch.setattr("util.show.visdom._client_class", lambda: lambda **settings: Client())
    history, warnings = LossHistory(), []
    history.append("Loss", {"G": 1.0}, 10)
    log = VisdomLog("127.0.0.1", 8096, 1, "main", history, warnings.append)
    log.losses(None)
    assert _eventually(lambda: warnings)
    log.close()
    assert len(warnings) == 1
    assert "cannot show a window (KeyError('legend')); training goes on" in warnings[0]
