"""`mlx-qwen3 serve` as a process: start-up screen, Ctrl-C, kill -9, and mistakes in one line."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from mlx_qwen3.cli.app import main

PROGRAM = [sys.executable, "-m", "mlx_qwen3", "serve", "--port", "0"]
CHAT = {"messages": [{"role": "user", "content": "hello " * 80}], "max_tokens": 8, "enable_thinking": False}


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The program, its address, and its start-up screen."""
    process = subprocess.Popen(
        [*PROGRAM, "--cache-folder", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    killer = threading.Timer(100, process.kill)
    killer.start()
    try:
        screen = ""
        while "Ctrl-C" not in screen and (line := process.stdout.readline()):
            screen += line
        found = re.search(r"http://[\d.]+:\d+", screen)
        assert found, process.stderr.read() if process.stderr is not None else ""
        yield process, found[0], screen
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def cached(url: str) -> int:
    answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=60).json()
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_a_server_is_started_stopped_killed_and_started_again(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, url, screen):
        assert cached(url) == 0
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert err.strip() == "stopped"
        for word in ("/v1", "ANTHROPIC_BASE_URL", "Ctrl-C"):
            assert word in screen
    assert len(list(tmp_path.rglob("*.safetensors"))) == 0  # 90 tokens are not worth a file
    with serving(tmp_path) as (process, url, _):
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                try:
                    httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=5)
                except httpx.HTTPError:
                    return

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        process.kill()
        stop.set()
        for thread in threads:
            thread.join()
    with serving(tmp_path) as (_, url, _):
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        cached(url)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--host", "0.0.0.0"], "API keys"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--alias", "x=nothing"], "alias"),
        (["--api-key-file", "/no/such/file"], "/no/such/file"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = failure(["--port", "0", *arguments], capsys)
    assert word in error


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says when it fails."""
    with pytest.raises(SystemExit) as caught:
        main(["serve", *arguments])
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    return error


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port}" in failure(["--port", port], capsys)
