"""A page that is served and used: evaluates in it, and presses its keys and mouse for real."""

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
        self._browser, self._url = browser, url
        self._target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session: str = attached["sessionId"]
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

    def all_events(self) -> list[dict[str, Any]]:
        """Everything that the browser has told about this page so far, in order."""
        self.value("0")  # whatever was under way before has arrived now
        return self._browser.events(self._session)

    def problems(self) -> list[str]:
        """One sentence for each thing that no page of ours may do; empty when it is fine."""
        found = []
        for event in self.all_events():
            method, parameters = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                found.append(f"exception: {parameters['exceptionDetails'].get('text')}")
            elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
                found.append(f"console: {[a.get('value') for a in parameters['args']]}")
            elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
                found.append(f"log: {parameters['entry']['text']}")
            elif method == "Network.requestWillBeSent":
                address = parameters["request"]["url"]
                if not address.startswith((self._url, "blob:", "data:")):
                    found.append(f"fetched from elsewhere: {address}")
        page, window = self.value("[document.documentElement.scrollWidth, innerWidth]")
        if page > window:
            found.append(f"{page} pixels wide in a window of {window}")
        return found

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)

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

    def touch(self, start: tuple[float, float], end: tuple[float, float], steps: int = 5) -> None:
        """The same with a finger."""
        for i in range(steps + 1):
            x, y = (a + (b - a) * i / steps for a, b in zip(start, end, strict=True))
            kind = "touchMove" if i else "touchStart"
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def download_to(self, folder: Path) -> None:
        """Let the page save files, into ``folder``."""
        self._browser.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder)
        )

    def wait_for_file(self, folder: Path, ending: str) -> None:
        """Until a complete file with this end of its name is in ``folder``."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not any(path.name.endswith(ending) for path in folder.iterdir()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {ending} in {[path.name for path in folder.iterdir()]}")
            time.sleep(0.02)

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
