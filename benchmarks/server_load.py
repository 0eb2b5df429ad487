"""Servers under load: throughput and waiting times of 1 to 64 clients, beside mlx_lm.server.

    python -m benchmarks.server_load [--model demo] [--clients 1 4 16 64] [--repeat 3] [--tokens 32]

Closed loop: each client sends its next streamed chat as soon as it has the answer to the last. Open loop
(`--rate`): requests arrive at random moments, so many a second on average. Both servers get the same
checkpoint and the same messages, and run one after the other in fresh processes, alternating. Greedy, without
thinking, with at most `--tokens` tokens an answer. The table has medians of the runs.

TTFT is from the request to the first piece of text; TPOT the mean time between two pieces after it. A piece
is what one chunk of the stream brings; tokens are those that the servers report.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.server_processes import SERVERS, running

QUESTIONS = ["what is {}+{}?", "what is {}-{}?", "hello, I am number {} of {}", "what is {}*{}?"]


@dataclass(frozen=True)
class Answer:
    """One request. Times are seconds; error: what went wrong, if anything."""

    tokens: int
    first: float
    total: float
    pieces: int
    error: str = ""

    @property
    def per_piece(self) -> float:
        return (self.total - self.first) / (self.pieces - 1) if self.pieces > 1 else 0.0


def message(number: int) -> str:
    draw = random.Random(number)
    return QUESTIONS[number % len(QUESTIONS)].format(draw.randrange(10, 99), draw.randrange(10, 99))


async def ask(client: httpx.AsyncClient, model: str, number: int, tokens: int) -> Answer:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": message(number)}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": tokens,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    start, first, pieces, used = time.perf_counter(), 0.0, 0, 0
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                return Answer(0, 0.0, 0.0, 0, f"status {response.status_code}")
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line[6:])
                used = (chunk.get("usage") or {}).get("completion_tokens", used)
                if any(choice["delta"].get("content") for choice in chunk["choices"]):
                    pieces += 1
                    first = first or time.perf_counter() - start
    except httpx.HTTPError as error:
        return Answer(0, 0.0, 0.0, 0, type(error).__name__)
    return Answer(used, first, time.perf_counter() - start, pieces, "" if used else "no answer")


async def closed(
    url: str, model: str, clients: int, requests: int, tokens: int
) -> tuple[float, list[Answer]]:
    """`clients` clients send `requests` requests in all."""
    numbers, answers = iter(range(requests)), []

    async def client_loop(client: httpx.AsyncClient) -> None:
        for number in numbers:
            answers.append(await ask(client, model, number, tokens))

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        await ask(client, model, 10**6, 2)  # does not count
        start = time.perf_counter()
        await asyncio.gather(*(client_loop(client) for _ in range(clients)))
        return time.perf_counter() - start, answers


async def opened(url: str, model: str, rate: float, requests: int, tokens: int) -> tuple[float, list[Answer]]:
    """Requests arrive at random moments, `rate` a second."""
    draw = random.Random(7)
    async with httpx.AsyncClient(
        base_url=url, timeout=600, limits=httpx.Limits(max_connections=1000)
    ) as client:
        await ask(client, model, 10**6, 2)
        start, tasks = time.perf_counter(), []
        for number in range(requests):
            tasks.append(asyncio.create_task(ask(client, model, number, tokens)))
            await asyncio.sleep(draw.expovariate(rate))
        answers = await asyncio.gather(*tasks)
        return time.perf_counter() - start, list(answers)


def figures(seconds: float, answers: list[Answer]) -> dict[str, float]:
    good = [answer for answer in answers if not answer.error]
    firsts = sorted(answer.first for answer in good)
    return {
        "tokens_per_second": sum(answer.tokens for answer in good) / seconds,
        "ttft_p50": firsts[len(firsts) // 2] if firsts else 0.0,
        "ttft_p95": firsts[int(0.95 * (len(firsts) - 1))] if firsts else 0.0,
        "tpot": statistics.median([answer.per_piece for answer in good]) if good else 0.0,
        "errors": float(len(answers) - len(good)),
    }


def measure(name: str, options: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """All loads on one server, in a fresh process."""
    found: dict[str, dict[str, float]] = {}
    with running(name, folder) as (url, model):
        for clients in options.clients:
            requests = max(options.requests, 2 * clients)
            found[f"{clients} clients"] = figures(
                *asyncio.run(closed(url, model, clients, requests, options.tokens))
            )
        if options.rate:
            load = asyncio.run(opened(url, model, options.rate, options.requests, options.tokens))
            found[f"{options.rate:g} a second"] = figures(*load)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="demo", help="demo, or a folder that mlx-lm can load, too")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--requests", type=int, default=32, help="Of each load, and at least two a client.")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.0, help="Open loop: requests a second.")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=list(SERVERS))
    parser.add_argument("--json", type=Path, help="Write all runs to this file.")
    options = parser.parse_args()
    from mlx_qwen3.checkpoint import resolve

    folder = Path(resolve(options.model))
    runs: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in options.servers}
    for _ in range(options.repeat):
        for name in options.servers:
            runs[name].append(measure(name, options, folder))
    if options.json is not None:
        options.json.write_text(json.dumps(runs, indent=1))
    show(runs)


def show(runs: dict[str, list[dict[str, dict[str, float]]]]) -> None:
    print("| load | server | tokens/s | TTFT p50 | p95 | per piece | errors |\n|---|---|---|---|---|---|---|")
    loads: list[Any] = list(next(iter(runs.values()))[0])
    for load in loads:
        for name, each in runs.items():
            row = {key: statistics.median(run[load][key] for run in each) for key in each[0][load]}
            print(
                f"| {load} | {name} | {row['tokens_per_second']:.1f} | {row['ttft_p50'] * 1000:.0f} ms "
                f"| {row['ttft_p95'] * 1000:.0f} ms | {row['tpot'] * 1000:.1f} ms | {row['errors']:.0f} |"
            )


if __name__ == "__main__":
    main()
