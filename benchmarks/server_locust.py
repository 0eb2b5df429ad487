"""What locust runs for `benchmarks.server_load`: streamed chats, in a closed or an open loop.

Closed: each user sends its next chat as soon as the last one has ended. Open (`--rate`): one user starts
chats at random moments. What came of each chat is written to `--samples` as JSON when the time is over.
"""

from __future__ import annotations

import json
import random
import time
from itertools import count
from pathlib import Path
from typing import Any

import gevent
from gevent.pool import Group
from locust import FastHttpUser, events

QUESTIONS = ["what is {}+{}?", "what is {}-{}?", "hello, I am number {} of {}", "what is {}*{}?"]
SAMPLES: list[dict[str, Any]] = []
NUMBERS = count()


def message(number: int) -> str:
    draw = random.Random(number)
    return QUESTIONS[number % len(QUESTIONS)].format(draw.randrange(10, 99), draw.randrange(10, 99))


def add_options(parser: Any) -> None:
    parser.add_argument("--served-model", default="demo")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--samples", default="samples.json")


def write_samples(environment: Any, **_: Any) -> None:
    Path(environment.parsed_options.samples).write_text(json.dumps(SAMPLES))


class Client(FastHttpUser):
    """A client. Times of samples are seconds of one clock."""

    network_timeout = connection_timeout = 600.0
    concurrency = 2000
    started = Group()

    def on_stop(self) -> None:
        self.started.kill(block=False)

    def go(self) -> None:
        """One chat, or one arrival."""
        if (rate := self.environment.parsed_options.rate) == 0:
            self.ask(next(NUMBERS))
            return
        gevent.sleep(random.expovariate(rate))
        self.started.start(gevent.Greenlet(self.ask, next(NUMBERS)))

    tasks = [go]  # noqa: RUF012  # what locust asks for

    def ask(self, number: int) -> None:
        options = self.environment.parsed_options
        body = {
            "model": options.served_model,
            "messages": [{"role": "user", "content": message(number)}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "max_tokens": options.tokens,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        sample: dict[str, Any] = {"start": time.perf_counter(), "pieces": 0, "is_whole": False, "error": ""}
        SAMPLES.append(sample)
        try:
            with self.client.post(
                "/v1/chat/completions", json=body, stream=True, catch_response=True
            ) as answer:
                if answer.status_code == 200:
                    read(answer._response, sample)
                else:
                    sample["error"] = f"status {answer.status_code}"
                if not sample["is_whole"]:
                    sample["error"] = sample["error"] or "the stream broke off"
                    answer.failure(sample["error"])
        finally:  # also where the time was over, which leaves `error` empty
            sample["end"] = time.perf_counter()


def read(lines: Any, sample: dict[str, Any]) -> None:
    """Note when which pieces of a stream came, and how many tokens it has had."""
    while line := lines.readline(b"\n"):
        if line.startswith(b"data: [DONE]"):
            sample["is_whole"] = "tokens" in sample
            lines.read()  # what ends the answer, so that the connection can be used again
            return
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        if usage := chunk.get("usage"):
            sample["tokens"] = usage["completion_tokens"]
        if any(choice["delta"].get("content") for choice in chunk["choices"]):
            sample["last"] = time.perf_counter()
            sample.setdefault("first", sample["last"])
            sample["pieces"] += 1


events.init_command_line_parser.add_listener(add_options)
events.quitting.add_listener(write_samples)
