"""The demo, served inside the tests' process."""

import contextlib
import http.client
import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from api import PoseTransfer
from data.fashion_dataset import FashionDataset
from data.gallery import DatasetSamples
from models.estimators import KeypointEstimator, PersonFinder
from script.demo import PAGE, Studio
from util.show.server import PageServer, page_files


class Served:
    """A running demo and a client for it."""

    def __init__(self, studio: Studio, server: PageServer):
        self.studio, self.server = studio, server

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one request, sent as it is given."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request(method, path, body or None, headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: bytes = b"") -> Any:
        """The JSON value of a request that is answered."""
        status, _, answer = self.ask(method, path, body)
        assert status == 200, answer
        return json.loads(answer)

    def refused(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and sentence of a request that is refused."""
        status, _, answer = self.ask(method, path, body, headers)
        assert status >= 400, answer
        value = json.loads(answer)
        assert set(value) == {"error"}
        return status, value["error"]

    def send(self, data: bytes) -> bytes:
        """What comes back for raw bytes, after which nothing more is sent."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=30) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(1 << 16)


def studio_of(run: Path, data: Path, estimator: KeypointEstimator | None = None) -> Studio:
    """The studio of a run and the test people of a data set in the fashion layout."""
    transfer = PoseTransfer.from_checkpoint(run, device="cpu")
    samples = DatasetSamples(FashionDataset(data, "test", transfer.load_size))
    return Studio(transfer, samples, estimator and PersonFinder(estimator))


@contextlib.contextmanager
def served(studio: Studio) -> Iterator[Served]:
    """Serve it on a free port of the loopback address while the block runs."""
    server, ready = PageServer(page_files(PAGE), studio.routes()), threading.Event()
    thread = threading.Thread(target=server.run, args=(lambda url: ready.set(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield Served(studio, server)
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


def picture_of(content: bytes) -> np.ndarray:
    """The pixels of a PNG or JPEG."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
