"""Live windows in a visdom server, sent by a thread: training never waits for the network."""

import html
import logging
import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from util.show.sinks import FixedImages, Images, Losses, LossHistory, Sink

CONNECT_SECONDS, READ_SECONDS = 3.0, 10.0
RETRY_SECONDS = 5.0
SMALLEST_WINDOW = 176  # pixels, width of a picture
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CLOSE_SECONDS = 5.0  # the end of a training waits this long for the last windows


def server_address(server: str, port: int) -> tuple[str, int]:
    """URL without port, and port, of a host name or URL; a port in it goes before ``port``."""
    parts = urlsplit(server if "://" in server else f"http://{server}")
    host = parts.netloc.removesuffix(f":{parts.port}")
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}", parts.port or port


def environment_of(name: str) -> str:
    """A name that visdom can hold for an environment; different names stay different."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", name).strip(".") or "main"
    if plain == name:
        return plain
    return f"{plain}-{sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


class VisdomLog(Sink):
    """Windows for losses, learning rates, metrics and every picture.

    The newest content of each window is kept and sent by a thread. While no server answers there is
    one warning, then silence; the thread tries again every 5 s, and sends all windows to a server
    that came back empty. Curves are sent whole: nothing is missing then.

    :param display_id: first part of the window names, so that runs may share an environment.
    :raises ImportError: where the visdom package is not installed.
    """

    name = "visdom"
    shows_pictures = True

    def __init__(
        self,
        server: str,  # host name or URL
        port: int,
        display_id: int,
        environment: str,
        history: LossHistory,
        warn: Callable[[str], None],
    ):
        url, self._port = server_address(server, port)
        self._address, self._display_id = f"{url}:{self._port}", display_id
        self._connect = partial(
            _client_class(), server=url, port=self._port, env=environment_of(environment),
            raise_exceptions=True, use_incoming_socket=False,
        )  # fmt: skip
        self._history, self._warn = history, warn
        # key -> method of the client, options, arrays
        self._windows: dict[str, tuple[str, dict, dict]] = {}
        self._unsent: set[str] = set()
        self._changed = threading.Condition()
        self._closing = self._warned = False
        self._thread = threading.Thread(target=self._run, name="visdom", daemon=True)
        self._thread.start()

    def losses(self, record: Losses) -> None:
        self._show_curves("losses", "Loss")
        self._show_curves("learning rates", "LR")

    def metrics(self, epoch: int, total_samples: int, values: Mapping[str, float]) -> None:
        self._show_curves("metrics", "Metric")

    def pictures(self, epoch: int, total_samples: int, images: Images, fixed: FixedImages) -> None:
        for name, image in images.items():
            caption = html.escape(f"{name}, epoch {epoch}, {total_samples:,} samples")
            height, width = image.shape[:2]
            zoom = max(1.0, SMALLEST_WINDOW / width)  # 32-pixel pictures would be stamps
            options = {"title": html.escape(name), "caption": caption, "jpgquality": 90,
                       "width": zoom * width, "height": zoom * height}  # fmt: skip
            pixels = np.ascontiguousarray(image.transpose(2, 0, 1))  # (3, H, W)
            self._post(name, "image", options, img=pixels)

    def close(self) -> None:
        """Send what is waiting, unless no server answers."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    def _show_curves(self, title: str, group: str) -> None:
        """All curves of a group over one axis; a curve has a gap where it has no point."""
        curves = self._history.group(group)
        if curves:
            samples = np.unique(np.concatenate([curve.samples for curve in curves.values()]))
            values = np.full((len(samples), len(curves)), np.nan)
            for column, curve in enumerate(curves.values()):
                values[np.searchsorted(samples, curve.samples), column] = curve.values
            values[~np.isfinite(values)] = np.nan  # JSON has no infinity
            axis = np.tile(samples[:, None], (1, len(curves))).astype(float)
            names = [html.escape(name) for name in curves]
            options = {"title": title, "legend": names, "xlabel": "samples"}
            self._post(title, "line", options, Y=values, X=axis)

    def _post(self, window: str, kind: str, options: dict[str, Any], **content: np.ndarray) -> None:
        """Replace the content of a window; returns at once."""
        key = f"{self._display_id}_{re.sub(r'[^A-Za-z0-9_-]', '_', window)}"
        with self._changed:
            self._windows[key] = kind, options, content
            self._unsent.add(key)
            self._changed.notify()

    def _run(self) -> None:
        client = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsent or self._closing)
                if not self._unsent or (self._closing and client is None and self._warned):
                    return
                waiting = {key: self._windows[key] for key in sorted(self._unsent)}
                self._unsent.clear()
            try:
                client = client or self._connect()
                for key, (kind, options, content) in waiting.items():
                    getattr(client, kind)(win=key, opts=dict(options), **content)
            except Exception as error:  # whatever visdom raises must not end a training
                client = None
                self._report(error)
                with self._changed:
                    self._unsent.update(self._windows)
                    self._changed.wait_for(lambda: self._closing, timeout=RETRY_SECONDS)

    def _report(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        if not isinstance(error, OSError):  # there is a server, and starting one does not help
            self._warn(
                f"visdom at {self._address} cannot show a window ({error!r}); training goes on"
            )
            return
        reason = type(error.__context__ or error).__name__
        command = f"python -m script.visdom_server --port {self._port}"
        self._warn(
            f"no visdom server answers at {self._address} ({reason}); training goes on, and its "
            f"windows are sent once one runs: {command}"
        )


def _client_class():
    """visdom's client with time limits, and with errors instead of printed tracebacks."""
    import requests
    from visdom import Visdom

    logging.getLogger("visdom").setLevel(logging.ERROR)  # it reports each new session

    class Client(Visdom):
        def _handle_post(self, url: str, data: Any = None) -> str:
            if self._session is None:
                self._session = requests.Session()
                self._session.trust_env = urlsplit(url).hostname not in LOOPBACK  # no proxy
            limits = (CONNECT_SECONDS, READ_SECONDS)
            answer = self._session.post(url, data=data or {}, timeout=limits)
            answer.raise_for_status()
            return answer.text

    return Client
