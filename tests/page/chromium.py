"""Debian's Chromium without a screen, driven over the DevTools protocol: finds things as a screen reader does, and taps
them as a finger does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp

T = TypeVar("T")
Data = dict[str, Any]

WIDTH, HEIGHT, SCALE = 390, 844, 2
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Missing(AssertionError):
    """There is no such thing on the screen."""


class Chromium:
    def __init__(self, directory: Path, trusted_key: str) -> None:
        """``trusted_key``: base64 of the SHA-256 of the one public key whose certificate is taken although the system
        does not know its CA. (Chromium reads no file of anchors; the certificate was verified by the caller.)"""
        directory.mkdir()
        self._runner = asyncio.Runner()
        self._last = 0
        command = ["chromium", *_FLAGS, f"--user-data-dir={directory / 'profile'}", "--remote-debugging-port=0"]
        command += [f"--ignore-certificate-errors-spki-list={trusted_key}", "about:blank"]
        self._log = (directory / "chromium.log").open("wb")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        told = directory / "profile" / "DevToolsActivePort"
        self._until("Chromium", lambda: told.exists() and len(told.read_text().split()) == 2, 30)
        self._runner.run(self._connect(int(told.read_text().split()[0])))
        for domain in ("Page", "DOM", "Accessibility", "Runtime"):
            self.call(f"{domain}.enable")
        metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": SCALE, "mobile": True}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.call("Emulation.setTouchEmulationEnabled", enabled=True)

    async def _connect(self, port: int) -> None:
        self._http = aiohttp.ClientSession()
        async with self._http.get(f"http://127.0.0.1:{port}/json/list") as answer:
            (page,) = [each for each in await answer.json(content_type=None) if each["type"] == "page"]
        self._socket = await self._http.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._runner.run(self._http.close())
        self._runner.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    # --- the protocol ----------------------------------------------------------------------------

    def call(self, method: str, **params: Any) -> Data:
        return self._runner.run(self._call(method, params))

    async def _call(self, method: str, params: Data) -> Data:
        self._last += 1
        await self._socket.send_str(json.dumps({"id": self._last, "method": method, "params": params}))
        async with asyncio.timeout(30):
            while True:
                answer = json.loads(await self._socket.receive_str())
                if answer.get("id") == self._last:
                    break
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        result: Data = answer["result"]
        return result

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    # --- what is seen ----------------------------------------------------------------------------

    def nodes(self) -> list[tuple[str, str, int]]:
        """(role, name, DOM node) of what a screen reader tells."""
        tree = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (each["role"]["value"], each.get("name", {}).get("value", ""), each.get("backendDOMNodeId", 0))
            for each in tree
            if not each["ignored"]
        ]

    def find(self, role: str, name: str) -> int:
        """The DOM node of the one whose name begins with ``name``. Raises Missing."""
        found = [node for kind, known, node in self.nodes() if kind == role and known.startswith(name)]
        if not found:
            raise Missing(f"no {role} {name!r} among {[each[:2] for each in self.nodes()]}")
        return found[0]

    def text(self) -> str:
        """Of the screen, as it is read out."""
        return " ".join(name for role, name, _ in self.nodes() if role == "StaticText")

    def until(self, what: str, within: float = 20) -> None:
        """Wait for this text."""
        self._until(what, lambda: what in self.text(), within)

    def _until(self, what: str, condition: Callable[[], object], within: float) -> None:
        end = time.monotonic() + within
        while not condition():
            if time.monotonic() > end:
                seen = self.text() if hasattr(self, "_socket") else ""
                raise AssertionError(f"waited {within:.0f} s in vain for {what!r}; the screen says {seen!r}")
            time.sleep(0.1)

    def box(self, node: int) -> tuple[float, float, float, float]:
        """(left, top, width, height) of a node, brought into view."""
        self.call("DOM.scrollIntoViewIfNeeded", backendNodeId=node)
        quad = self.call("DOM.getContentQuads", backendNodeId=node)["quads"][0]
        return quad[0], quad[1], quad[4] - quad[0], quad[5] - quad[1]

    def screenshot(self) -> bytes:
        """PNG of what the phone shows."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def thumbnail(self) -> bytes:
        """The same, a pixel for each CSS pixel."""
        clip = {"x": 0, "y": self.evaluate("scrollY"), "width": WIDTH, "height": HEIGHT, "scale": 1 / SCALE}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", clip=clip)["data"])

    # --- what is done ----------------------------------------------------------------------------

    def go(self, url: str) -> None:
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self.settled()

    def settled(self) -> None:
        self._until("the page", lambda: self.evaluate("document.readyState") == "complete", 20)

    def tap(self, role: str, name: str) -> None:
        left, top, width, height = self.box(self.find(role, name))
        point = {"x": left + width / 2, "y": top + height / 2}
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[point])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        time.sleep(0.2)
        self.settled()

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """``Tab``, ``Enter`` or ``ArrowDown``, as a keyboard does it."""
        codes = {"Tab": 9, "Enter": 13, "ArrowDown": 40}
        event: Data = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": "\r"} if key == "Enter" else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)
        time.sleep(0.1)
        self.settled()
