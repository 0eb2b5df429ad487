"""Kills a server under load, again and again. Does the next one serve, and is what lies on disk sound?

    python -m benchmarks.server_kill [--times 10] [--clients 8] [--seed 0]

Each server keeps two KV caches in memory, so that nearly every request writes one to disk. Clients send long
prompts; a random time after the first answers the server is killed (SIGKILL). Then every file that is not
marked as unfinished has to be whole, the next server has to know all of them and to have removed the
unfinished ones, and its greedy answers to the same prompts have to be those of the first server.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import mlx.core as mx

from benchmarks.server_processes import free_port, wait_for

SERVER = """
import sys
from mlx_qwen3.cli.app import main
from mlx_qwen3.server.reuse import prefixes

prefixes.MOST_IDLE = 2
main(sys.argv[1:])
"""
# Texts that are worth a file (512 tokens), and few enough to come again.
TEXTS = 4
# Seconds after which a server is killed although it has answered nothing.
LONGEST = 60


@contextmanager
def server(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server that keeps its caches in `folder`, and its address. Killed at the end."""
    port = free_port()
    program = [sys.executable, "-c", SERVER, "serve", "--port", str(port), "--cache-folder", str(folder)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def ask(url: str, text: int, end: str = "", tokens: int = 12, stream: bool = False) -> str:
    """The greedy answer to one of the texts; `end` makes its end another. Raises httpx.HTTPError."""
    said = " ".join(f"number {text * 1000 + line} is {line * (text + 3)}," for line in range(60))
    body = {"messages": [{"role": "user", "content": f"{said} {end}"}], "max_tokens": tokens}
    body |= {"temperature": 0, "enable_thinking": False, "stream": stream}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    answer.raise_for_status()
    return "" if stream else str(answer.json()["choices"][0]["message"]["content"])


def press(process: subprocess.Popen[bytes], url: str, clients: int, seconds: float, seed: int) -> int:
    """Load a server, and kill it so many seconds after the first answers: how many requests were answered."""
    answered: list[int] = []

    def client(number: int) -> None:
        draw = random.Random(seed * 100 + number)
        while process.poll() is None:
            try:
                ask(url, draw.randrange(TEXTS), str(draw.random()), 20, stream=number % 2 == 0)
            except httpx.HTTPError:
                return
            answered.append(number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LONGEST
    while len(answered) < clients and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    for thread in threads:
        thread.join()
    return len(answered)


def check_files(folder: Path) -> tuple[int, int]:
    """How many caches are whole, and how many files unfinished. Raises what MLX raises for a broken file."""
    whole = list(folder.rglob("*.safetensors"))
    whole = [path for path in whole if not path.name.startswith(".")]
    for path in whole:
        arrays: dict[str, mx.array] = dict(mx.load(str(path)))  # type: ignore[arg-type]
        mx.eval(list(arrays.values()))
    return len(whole), len(list(folder.rglob(".*.part")))


def check_server(url: str, folder: Path, files: int, answers: list[str]) -> int:
    """Compare a new server with the files and with earlier answers: how many caches it read from disk."""
    caches = httpx.get(f"{url}/status", timeout=60).json()["models"][0]["prefix_caches"]
    assert caches["saved"] == files, f"{files} files are whole, and the server knows {caches['saved']}"
    assert not list(folder.rglob(".*.part")), "unfinished files are still there"
    assert [ask(url, text) for text in range(TEXTS)] == answers
    loaded = httpx.get(f"{url}/status", timeout=60).json()["models"][0]["prefix_caches"]["loaded"]
    return int(loaded)


def run(folder: Path, times: int, clients: int, seed: int, seconds: tuple[float, float]) -> Iterator[str]:
    """Kill a server so often; a line about each. Raises AssertionError where something is not sound."""
    draw = random.Random(seed)
    with server(folder) as (process, url):
        answers = [ask(url, text) for text in range(TEXTS)]
    files = check_files(folder)[0]
    for number in range(times):
        with server(folder) as (process, url):
            loaded = check_server(url, folder, files, answers)
            answered = press(process, url, clients, draw.uniform(*seconds), seed + number)
        files, unfinished = check_files(folder)
        yield (
            f"{number + 1}: answers as before, {loaded} caches read from disk; {answered} requests answered, "
            f"then killed: {files} files whole, {unfinished} unfinished"
        )
    with server(folder) as (process, url):
        check_server(url, folder, files, answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in run(Path(folder), options.times, options.clients, options.seed, (0.0, 1.5)):
            print(line, flush=True)
    print("all sound")


if __name__ == "__main__":
    main()
