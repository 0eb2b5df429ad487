"""Headless Chromium, driven over the WebDriver protocol."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from free_ports import free_port

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Tab": "\ue004",
    "Up": "\ue013",
    "Down": "\ue015",
    "Right": "\ue014",
    "Left": "\ue012",
    "Shift": "\ue008",
    "Space": " ",
}


class Browser:
    """One window. Scripts run in the page; keys go to whatever has the focus."""

    def __init__(self, client: httpx.Client, session: str):
        self._client, self._session = client, session

    def open(self, address: str) -> None:
        self._call("POST", "url", url=address)

    def run(self, script: str, *arguments: Any) -> Any:
        """What `script`, the body of a function, returns. `arguments` are `arguments[0]`, ..."""
        return self._call("POST", "execute/sync", script=script, args=list(arguments))

    def wait(self, condition: str, seconds: float = 60) -> Any:
        """The value of a JavaScript expression as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(f"return {condition}")):
            if time.monotonic() > deadline:
                shown = self.run("return document.body.innerText")[-500:]
                raise AssertionError(f"never true: {condition}; the page shows {shown!r}")
            time.sleep(0.02)
        return value

    def press(self, *keys: str) -> None:
        """Press keys, one after the other: characters or names of KEYS. `Shift+Enter` holds Shift."""
        actions = []
        for key in keys:
            chord = key.split("+") if len(key) > 1 else [key]
            codes = [KEYS.get(name, name) for name in chord]
            actions += [{"type": "keyDown", "value": code} for code in codes]
            actions += [{"type": "keyUp", "value": code} for code in reversed(codes)]
        self._call("POST", "actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def type(self, text: str) -> None:
        self.press(*text)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "screenshot")))

    def resize(self, width: int, height: int) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, scheme: str) -> None:
        """Say that the system is `light` or `dark`."""
        self.devtools(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._call("POST", "goog/cdp/execute", cmd=command, params=parameters)

    def log(self) -> list[str]:
        """What the console said since last asked: errors of scripts and refusals by the page's policy."""
        return [entry["message"] for entry in self._call("POST", "se/log", type="browser")]

    def _call(self, method: str, command: str, **body: Any) -> Any:
        address = f"/session/{self._session}/{command}"
        reply = self._client.request(method, address, json=body if method == "POST" else None)
        value = reply.json()["value"]
        if reply.is_error:
            raise AssertionError(f"{command}: {value['message']}")
        return value


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`. Skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    port = free_port()
    with subprocess.Popen(
        [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                _wait_until_ready(client)
                reply = client.post(
                    "/session", json={"capabilities": {"alwaysMatch": _wish(program, folder)}}
                )
                value = reply.json()["value"]
                if reply.is_error:
                    pytest.skip(f"Chromium does not start here: {value['message'].splitlines()[0]}")
                try:
                    yield Browser(client, value["sessionId"])
                finally:
                    client.delete(f"/session/{value['sessionId']}")
        finally:
            process.terminate()


def _wish(program: str, folder: Path) -> dict[str, Any]:
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        f"--user-data-dir={folder}",
        "--no-first-run",
        "--disable-background-networking",
        "--window-size=1200,860",
    ]
    return {
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": program, "args": flags},
        "goog:loggingPrefs": {"browser": "ALL"},
    }


def _wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if client.get("/status").json()["value"]["ready"]:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("chromedriver does not answer")
