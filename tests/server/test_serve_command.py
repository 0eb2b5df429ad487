"""`mlx-qwen3 serve` as a process: start-up screen, Ctrl-C, kill -9, and mistakes in one line."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks import server_kill
from mlx_qwen3.cli.app import main
from mlx_qwen3.server.run import listen

PROGRAM = [sys.executable, "-m", "mlx_qwen3", "serve", "--port", "0"]
# The same program, whose engine's thread ends at SIGUSR1 as at the panic of a library.
DYING = """
import signal, sys
from mlx_qwen3.cli.app import main
from mlx_qwen3.generation.scheduler import Scheduler

class Panic(BaseException):
    pass

told, step = [], Scheduler.step

def dying(self):
    if told:
        raise Panic("the library broke")
    return step(self)

Scheduler.step = dying
signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
main(sys.argv[1:])
"""
LONG = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3000, "min_tokens": 3000}
CHAT = {"messages": [{"role": "user", "content": "hello " * 80}], "max_tokens": 8, "enable_thinking": False}


@contextmanager
def serving(
    folder: Path, *arguments: str, program: Sequence[str] = PROGRAM
) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The program, its address, and its start-up screen."""
    process = subprocess.Popen(
        [*program, "--cache-folder", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    killer = threading.Timer(250, process.kill)
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


def test_a_server_is_started_and_stopped(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, url, screen):
        assert cached(url) == 0
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert err.strip() == "stopped"
        for word in ("/v1", "ANTHROPIC_BASE_URL", "Ctrl-C"):
            assert word in screen
    assert len(list(tmp_path.rglob("*.safetensors"))) == 0  # 90 tokens are not worth a file


def test_a_server_that_is_killed_under_load_leaves_sound_files_and_serves_again(tmp_path: Path) -> None:
    [line] = server_kill.run(tmp_path, times=1, clients=4, seed=1, seconds=(0.0, 0.3))
    assert "answers as before" in line
    assert server_kill.check_files(tmp_path)[0] > 0


def test_all_who_wait_are_told_of_a_dead_engine_and_the_program_ends(tmp_path: Path) -> None:
    program = [sys.executable, "-c", DYING, "serve", "--port", "0"]
    anthropic = {"model": "demo", "messages": LONG["messages"], "max_tokens": 3000, "min_p": 0.5}
    responses = {"model": "demo", "input": "hi", "max_output_tokens": 3000}
    asked = [
        *([("/v1/chat/completions", {**LONG, "stream": number % 2 == 0}) for number in range(24)]),
        *([("/v1/messages", {**anthropic, "stream": stream}) for stream in (True, False)]),
        *([("/v1/responses", {**responses, "stream": stream}) for stream in (True, False)]),
    ]
    with serving(tmp_path, program=program) as (process, url, _), ThreadPoolExecutor(len(asked)) as pool:

        def ask(path: str, body: dict[str, Any]) -> tuple[int, str]:
            answer = httpx.post(url + path, json=body, timeout=100)
            return answer.status_code, answer.text

        answers = [pool.submit(ask, path, body) for path, body in asked]
        deadline = time.monotonic() + 60
        # Two more than run at once are handed to the engine: of 28 some have to wait for their turn.
        while len(httpx.get(f"{url}/slots").json()) < len(asked) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        for (path, body), answer in zip(asked, answers, strict=True):
            status, text = answer.result()
            assert status == (200 if body["stream"] else 503), (path, text)
            assert text.count("the library broke") == 1, (path, text)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines() == [
        "error: the engine's thread died (Panic: the library broke); make a new Engine"
    ]


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


def test_no_piece_of_an_answer_waits_for_the_acknowledgement_of_the_one_before() -> None:
    async def options_of_a_connection() -> int:
        connected = asyncio.get_running_loop().create_future()

        def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            connected.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listen("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(accept, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                no_delay: int = await connected
                writer.close()
        return no_delay

    assert asyncio.run(options_of_a_connection())
