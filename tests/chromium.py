"""Headless Chromium, spoken to over a pipe: the DevTools protocol, messages ended by NUL."""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Self

from servers import program


class Chromium:
    """One page of one browser."""

    def __init__(self, folder: Path) -> None:
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        # the protocol's ends are file descriptors 3 and 4
        command = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        browser = [program("chromium", "chromium"), *options, "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", str(theirs_in), str(theirs_out), *browser],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest = b""
        self._sent = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)
        self._process.terminate()
        self._process.wait(120)
        os.close(self._in)

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method, and return its result."""
        self._sent += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._sent, "method": method, "params": parameters, **session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def show(self, url: str, *, width: int, height: int = 800, scheme: str = "light") -> None:
        """Load a page in a window of that size, and return once it is there."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        failed = self.call("Page.navigate", url=url).get("errorText")
        assert failed is None, failed
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression: str) -> Any:
        """Return what an expression comes to."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def screenshot(self, file: Path) -> None:
        """Take a picture of what the window shows."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def complaints(self) -> list[str]:
        """Return what the browser logged: violations of the policy, what could not be loaded."""
        return [json.dumps(event["params"]) for event in self.events if event["method"] == "Log.entryAdded"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            received = os.read(self._in, 65536)
            assert received, "chromium has ended"
            self._rest += received
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found
