"""Opens pages in headless Chromium and reports what a person would notice.

The browser is spoken to over ``--remote-debugging-pipe`` (Chrome DevTools protocol: JSON texts that
end with a zero byte), so no further package is needed.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"
)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
TIMEOUT_SECONDS = 60
LOCAL_SCHEMES = ("file:", "data:", "about:", "blob:")

# Lazy images are loaded as if the page had been scrolled through.
_INSPECT = """(async () => {
  const images = [...document.images];
  for (const image of images) image.loading = "eager";
  await Promise.all(images.map(i => i.complete ? null : new Promise(done => {
    i.addEventListener("load", done); i.addEventListener("error", done);
  })));
  return {
    images: images.map(i => ({url: i.src, width: i.naturalWidth, alt: i.alt})),
    links: [...document.links].map(a => a.href),
    text: document.body.innerText,
    title: document.title,
    scripts: document.scripts.length,
    page_width: document.documentElement.scrollWidth,
    view_width: document.documentElement.clientWidth,
  };
})()"""


@dataclass
class PageReport:
    """What the browser found in one page."""

    images: list[str]
    broken_images: list[str]
    images_without_alt: list[str]
    links: list[str]
    text: str
    title: str
    scripts: int
    page_width: int
    view_width: int
    console_errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    external_requests: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """One sentence for each thing that no page of ours may do; empty when it is fine."""
        found = [f"image does not load: {url}" for url in self.broken_images]
        found += [f"image has no alt text: {url}" for url in self.images_without_alt]
        found += [f"console: {text}" for text in self.console_errors]
        found += [f"a script opened a dialog: {text}" for text in self.dialogs]
        found += [f"fetched from elsewhere: {url}" for url in self.external_requests]
        if self.page_width > self.view_width:
            found.append(f"{self.page_width} pixels wide in a window of {self.view_width}")
        return found


class Browser:
    """One headless Chromium with a profile of its own; a context manager."""

    def __enter__(self) -> Browser:
        if CHROMIUM is None:
            raise RuntimeError("chromium is not installed")
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        commands_in, self._commands = os.pipe()
        self._answers, answers_out = os.pipe()

        def connect() -> None:  # in the child: the protocol uses the file descriptors 3 and 4
            commands = fcntl.fcntl(commands_in, fcntl.F_DUPFD, 10)
            answers = fcntl.fcntl(answers_out, fcntl.F_DUPFD, 10)
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=connect,
        )
        os.close(commands_in)
        os.close(answers_out)
        self._buffer = b""
        self._events: list[dict[str, Any]] = []
        self._last_id = 0
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        shutil.rmtree(self._profile, ignore_errors=True)

    def check(
        self,
        path: str | Path,
        width: int = 1280,
        screenshot: str | Path | None = None,
        dark: bool = False,
    ) -> PageReport:
        """Open a file, load all its images, report; optionally save a picture of the page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", session, features=[scheme])
        self._events.clear()
        self.call("Page.navigate", session, url=Path(path).resolve().as_uri())
        self.wait_for("Page.loadEventFired", session)
        found = self._evaluate(session)
        if screenshot is not None:
            options = {"captureBeyondViewport": True, "format": "png"}
            data = self.call("Page.captureScreenshot", session, **options)["data"]
            Path(screenshot).write_bytes(base64.b64decode(data))
        report = self._report(found, session)
        self.call("Target.closeTarget", targetId=target)
        return report

    def _evaluate(self, session: str) -> dict[str, Any]:
        options = {"awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", session, expression=_INSPECT, **options)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"the page could not be inspected: {answer['exceptionDetails']}")
        return answer["result"]["value"]

    def _report(self, found: dict[str, Any], session: str) -> PageReport:
        images = found.pop("images")
        report = PageReport(
            images=[image["url"] for image in images],
            broken_images=[image["url"] for image in images if image["width"] == 0],
            images_without_alt=[image["url"] for image in images if not image["alt"]],
            **found,
        )
        for event in self._events:
            if event.get("sessionId") == session:
                _note(event["method"], event["params"], report)
        return report

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its answer; events that arrive before it are kept."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._keep(answer)

    def events(self, session: str) -> list[dict[str, Any]]:
        """All events of a session that have come so far."""
        return [event for event in self._events if event.get("sessionId") == session]

    def wait_for(self, method: str, session: str) -> None:
        while not any(
            e["method"] == method and e.get("sessionId") == session for e in self._events
        ):
            self._keep(self._receive())

    def _keep(self, message: dict[str, Any]) -> None:
        if "method" not in message:
            return
        self._events.append(message)
        if message["method"] == "Page.javascriptDialogOpening":  # it blocks the page until answered
            answer = {"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            answer["sessionId"] = message["sessionId"]
            os.write(self._commands, json.dumps(answer).encode() + b"\0")

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select(
                [self._answers], [], [], max(deadline - time.monotonic(), 0)
            )
            if not ready:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._answers, 1 << 16)
            if not data:
                raise OSError("the browser has ended")
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


def _note(method: str, event: dict[str, Any], report: PageReport) -> None:
    """Sort one browser event into the report."""
    if method == "Network.requestWillBeSent":
        url = event["request"]["url"]
        if not url.startswith(LOCAL_SCHEMES):
            report.external_requests.append(url)
    elif method == "Page.javascriptDialogOpening":
        report.dialogs.append(event["message"])
    elif method == "Runtime.exceptionThrown":
        report.console_errors.append(event["exceptionDetails"].get("text", "exception"))
    elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "assert"):
        report.console_errors.append(str([a.get("value") for a in event["args"]]))
    elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
        entry = event["entry"]
        report.console_errors.append(f"{entry['text']} {entry.get('url', '')}".strip())


def check_page(
    path: str | Path, width: int = 1280, screenshot: str | Path | None = None
) -> PageReport:
    """Open one page in a browser of its own; see :class:`Browser` for several pages."""
    with Browser() as browser:
        return browser.check(path, width, screenshot)
