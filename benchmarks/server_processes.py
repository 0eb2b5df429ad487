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
from dataclasses import dataclass
from pathlib import Path

import psutil

SERVERS = ("mlx-qwen3", "mlx_lm.server", "llama.cpp")
START_SECONDS = 180


def command(name: str, folder: Path, port: int, cache: str) -> list[str]:
    """How a server is started."""
    if name == "mlx-qwen3":
        served = ["--model", str(folder), "--port", str(port), "--cache-folder", cache]
        return [sys.executable, "-m", "mlx_qwen3", "serve", *served]
    if name == "llama.cpp":
        return [
            sys.executable,
            "-m",
            "benchmarks.server_llama_cpp",
            "--model",
            str(folder),
            "--port",
            str(port),
        ]
    return [sys.executable, "-m", "mlx_lm", "server", "--model", str(folder), "--port", str(port)]


@dataclass(frozen=True)
class Started:
    """A server. model: the model's name there."""

    url: str
    model: str
    process: subprocess.Popen[bytes]

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it has taken."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def resident(self) -> int:
        """Bytes of its memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextmanager
def running(name: str, folder: Path, *arguments: str) -> Iterator[Started]:
    """A server for the checkpoint in `folder`, in a process of its own."""
    port = free_port()
    with tempfile.TemporaryDirectory() as cache:
        process = subprocess.Popen(
            [*command(name, folder, port, cache), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(f"{url}/health" if name != "mlx_lm.server" else f"{url}/v1/models", process)
            yield Started(url, folder.name if name == "mlx-qwen3" else str(folder), process)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


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
