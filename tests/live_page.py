"""A page that is served and used: evaluates in it, and presses its keys and mouse for real."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

from tests.browser import TIMEOUT_SECONDS, Browser


class LivePage:
    """One tab of a :class:`Browser` at a URL; events of the browser are kept in ``events``."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        size: tuple[int, int] = (1400, 900),  # (w, h)
        dark: bool = False,
        phone: bool = False,
    ):
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        if phone:
            self.call("Emulation.setTouchEmulationEnabled", enabled=True)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        browser.wait_for("Page.loadEventFired", self._session)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        return self._browser.call(method, self._session, **parameters)

    def events(self, method: str) -> list[dict[str, Any]]:
        """Parameters of the events of a kind that have come so far, in order."""
        self.value("0")  # whatever was under way before has arrived now
        return [e["params"] for e in self._browser.events(self._session) if e["method"] == method]

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Until a JavaScript expression is true."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not (found := self.value(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"never true: {expression}")
            time.sleep(0.02)
        return found

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """A real mouse event: mousePressed, mouseMoved, mouseReleased or mouseWheel."""
        button = {"button": "left", "clickCount": 1} if kind != "mouseWheel" else {}
        held = {"buttons": 1} if kind == "mouseMoved" else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **{**button, **held, **more})

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 5) -> None:
        """Press at ``start``, move to ``end`` in some steps, release."""
        self.mouse("mousePressed", *start)
        for i in range(1, steps + 1):
            x, y = (a + (b - a) * i / steps for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", x, y)
        self.mouse("mouseReleased", *end)

    def key(self, key: str, modifiers: int = 0, **more: Any) -> None:
        """Press and release a key; ``modifiers``: 2 = Ctrl, 8 = Shift."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers, **more)

    def choose_file(self, selector: str, path: str | Path) -> None:
        """Give a file to an ``<input type="file">``."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path: str | Path, whole: bool = True) -> None:
        """Save the page as PNG, all of it or only what the window shows."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        Path(path).write_bytes(base64.b64decode(data["data"]))
