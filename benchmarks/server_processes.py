"""Starts servers in processes of their own, for the benchmarks of servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVERS = ("mlx-qwen3", "mlx_lm.server")
START_SECONDS = 180


def command(name: str, folder: Path, port: int, cache: str) -> list[str]:
    """How a server is started."""
    if name == "mlx-qwen3":
        served = ["--model", str(folder), "--port", str(port), "--cache-folder", cache]
        return [sys.executable, "-m", "mlx_qwen3", "serve", *served]
    return [sys.executable, "-m", "mlx_lm", "server", "--model", str(folder), "--port", str(port)]


@contextmanager
def running(name: str, folder: Path, *arguments: str) -> Iterator[tuple[str, str]]:
    """A server for the checkpoint in `folder`: its address, and the name of the model there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as cache:
        process = subprocess.Popen(
            [*command(name, folder, port, cache), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(f"{url}/health" if name == "mlx-qwen3" else f"{url}/v1/models", process)
            yield url, folder.name if name == "mlx-qwen3" else str(folder)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers. Raises RuntimeError if it ends, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"{process.args!r} did not answer")
