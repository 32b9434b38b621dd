"""Drive Debian's chromium over the DevTools protocol, through a pipe and with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
DESKTOP, PHONE = (1280, 800), (390, 844)
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)

Message = dict[str, Any]


class Page:
    """One page, and everything that the browser reported about it."""

    def __init__(self, process: subprocess.Popen[bytes], to_browser: int, from_browser: int) -> None:
        self._process, self._to, self._from = process, to_browser, from_browser
        self._bytes = b""
        self._n_sent = 0
        self._session: str | None = None
        self.events: list[Message] = []

    def attach(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, *, timeout: float = 300, **parameters: Any) -> Message:
        """Call a method of the protocol and return its result; what comes meanwhile is kept in ``events``."""
        self._n_sent += 1
        message: Message = {"id": self._n_sent, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            answer = self._read(deadline)
            if answer.get("id") == message["id"]:
                assert "error" not in answer, (method, answer["error"])
                result: Message = answer["result"]
                return result
            self.events.append(answer)

    def _read(self, deadline: float) -> Message:
        while b"\0" not in self._bytes:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._from, 1 << 20) if ready else b""
            assert chunk, f"chromium says nothing; it {'runs' if self._process.poll() is None else 'has ended'}"
            self._bytes += chunk
        text, _, self._bytes = self._bytes.partition(b"\0")
        message: Message = json.loads(text)
        return message

    def open(self, uri: str, size: tuple[int, int] = DESKTOP) -> None:
        """Load a page; returns once it is loaded."""
        self.resize(size)
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=uri)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def draw(self, selector: str = ".plot") -> int:
        """Scroll to each plot that matches a CSS selector, wait until it is drawn, and scroll back to the top.

        :return: number of plots
        """
        n_plots: int = self.evaluate(f"document.querySelectorAll({selector!r}).length")
        for i in range(n_plots):
            plot = f"document.querySelectorAll({selector!r})[{i}]"
            self.evaluate(f"{plot}.scrollIntoView({{ block: 'center' }})")
            self.until(f"{plot}.querySelector('.main-svg') !== null")
        self.evaluate("scrollTo(0, 0)")
        return n_plots

    def resize(self, size: tuple[int, int]) -> None:
        width, height = size
        is_phone = width < 600
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )

    def evaluate(self, expression: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, timeout: float = 300) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + timeout
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"not within {timeout} s: {expression}"
            time.sleep(0.05)

    def move_mouse(self, x: float, y: float) -> None:
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """Press and release one key: "Tab" or "Enter"."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, file: Path, whole: bool = False) -> None:
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        file.write_bytes(base64.b64decode(data))

    def print(self, file: Path) -> None:
        data = self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]
        file.write_bytes(base64.b64decode(data))

    def happened(self, *methods: str) -> list[Message]:
        return [event for event in self.events if event.get("method") in methods]


Open = Callable[[], Page]


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Run chromium with its own profile and one page."""
    assert CHROMIUM is not None
    read_here, write_there = os.pipe()
    read_there, write_here = os.pipe()
    # The protocol's pipe is file descriptors 3 and 4 of the browser.
    start = ["bash", "-c", f'exec "$0" "$@" 3<&{read_there} 4>&{write_there}', CHROMIUM]
    process = subprocess.Popen(
        [*start, *_OPTIONS, f"--user-data-dir={profile}"],
        pass_fds=(read_there, write_there),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_there)
    os.close(write_there)
    page = Page(process, write_here, read_here)
    try:
        page.attach()
        yield page
    finally:
        os.close(write_here)  # without its pipe the browser ends
        try:
            process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(read_here)
