"""A real visdom server for tests, on a free port of this machine, without a download."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.conftest import ROOT
from tests.ports import free_port

START_SECONDS = 120


class VisdomServer:
    """A context manager; ``kill`` ends it at once, ``start`` runs it again on the same port."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = ["--port", str(self.port), "--offline", "--env_path", str(self.folder)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "script.visdom_server", *options],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.kill()
                raise RuntimeError("the visdom server did not start")
            time.sleep(0.1)

    def kill(self) -> None:
        """End the server without giving it a chance to say goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            opener.open(f"http://127.0.0.1:{self.port}/favicon.png", timeout=1).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def __enter__(self) -> VisdomServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
