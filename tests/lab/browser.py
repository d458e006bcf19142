"""Chromium without a window, driven through a pipe: pages as people get them."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.lab.host import find
from tests.pace import slack

#: What the chart library and the browser say of themselves.
QUIET = ("document idle", "ResizeObserver loop")


class Browser:
    """One page at a time. Use as a context manager.

    Args:
        profile: Folder of the browser's own files.
    """

    def __init__(self, profile: Path) -> None:
        chromium = find("chromium")
        assert chromium is not None, "run tests/lab/install.sh: it installs chromium"
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()

        def wire() -> None:
            """Give the browser its commands at descriptor 3, and take its answers from 4."""
            high = [fcntl.fcntl(one, fcntl.F_DUPFD, 64) for one in (theirs_in, theirs_out)]
            for place, one in enumerate(high, 3):
                os.dup2(one, place)

        self._process = subprocess.Popen(
            [
                chromium, "--headless=new", "--no-sandbox", "--disable-gpu",
                "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank",
            ],
            pass_fds=(3, 4), preexec_fn=wire, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._left = b""
        self._count = 0
        self._session, self._opened = "", 0
        #: What the page's scripts complained about.
        self.complaints: list[str] = []
        targets = self._ask("Target.getTargets")["targetInfos"]
        page = next(one for one in targets if one["type"] == "page")
        attached = self._ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")
        self._ask("Performance.enable", timeDomain="threadTicks")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)
        self._process.kill()
        self._process.wait()
        os.close(self._read)

    def look(self, width: int, *, dark: bool = False, height: int = 1000) -> None:
        """Give the window a width, in pixels, and the person a taste."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path, link: str = "", *, bypass_policy: bool = False) -> None:
        """Go to a file, and wait until it is there."""
        self._ask("Page.setBypassCSP", enabled=bypass_policy)
        # The number makes it another document, also where only the link differs.
        self._opened += 1
        address = f"{page.as_uri()}?{self._opened}{'#' if link else ''}{link}"
        self._ask("Page.navigate", url=address)
        self.settle(f"location.search === '?{self._opened}' && document.readyState === 'complete'")

    def value(self, script: str) -> Any:
        """What an expression is, or what it promises."""
        found = self._ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise AssertionError(json.dumps(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    def settle(self, script: str) -> None:
        """Wait until an expression is true."""
        limit = 20_000 * slack()
        assert self.value(
            f"new Promise((done) => {{const end = Date.now() + {limit}; const look = () =>"
            f" ({script}) ? done(true) : Date.now() > end ? done(false) : setTimeout(look, 50);"
            " look();})"
        ), f"it never came to that: {script}"

    def busy_s(self) -> float:
        """CPU time of the page's thread so far, seconds: what a loaded machine doesn't change."""
        found = self._ask("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

    def picture(self, to: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        shot = self._ask("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        to.write_bytes(base64.b64decode(shot["data"]))

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._count:
                assert "error" not in found, f"{method}: {found}"
                return found["result"]
            self._note(found)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters["exceptionDetails"])[:500])
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning"):
                words = " ".join(str(arg.get("value")) for arg in parameters["args"])
                if not any(quiet in words for quiet in QUIET):
                    self.complaints.append(words)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            content = os.read(self._read, 1 << 20)
            assert content, "the browser went away"
            self._left += content
        message, _, self._left = self._left.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found
