"""A chat of fifty turns: the tokens each engine prefills again, and whether its prompts match the template.

    python -m benchmarks.turns [--turns 50] [--model demo]

Ours is `Session`. The others are mlx-lm's own programs: `mlx_lm.server`, with a client that sends the whole
conversation back as OpenAI's clients do, and `mlx_lm.chat`, with its input loop replaced and its prompts
counted. Thinking changes from turn to turn, by the template's switch and by `/no_think` in the message
(mlx_lm.chat has only the latter). Sampling is greedy, with at most 100 tokens a turn. Each engine generates
its own answers, so the conversations differ a little.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

QUESTIONS = [
    "what is {}+{}?",
    "hello",
    "which models are there?",
    "what is {}-{}?",
    "how do I convert a model?",
]
MOST_TOKENS = 100


@dataclass(frozen=True)
class Question:
    """One message. thinks: the template's switch. soft: ` /no_think`, or nothing, at the message's end."""

    text: str
    thinks: bool
    soft: str


@dataclass(frozen=True)
class Row:
    """Tokens of one turn: of the prompt, prefilled after the message was sent, and prefilled ahead of it."""

    prompt: int
    read: int
    ahead: int = 0
    is_on_template: bool = True


def questions(turns: int) -> Iterator[Question]:
    rng = random.Random(3)
    for text in islice(cycle(QUESTIONS), turns):
        numbers = rng.randrange(10, 99), rng.randrange(10, 99)
        yield Question(text.format(*numbers), rng.random() < 0.7, rng.choice(["", "", "", " /no_think"]))


def ours(model: str, turns: int, prepares: bool, budget: int | None) -> list[Row]:
    """prepares: whether the engine prefills ahead between turns, as in the chat."""
    from mlx_qwen3 import Engine

    rows = []
    with Engine(model) as engine:
        session = engine.session(
            sampling={"temperature": 0, "max_tokens": MOST_TOKENS}, thinking_budget=budget
        )
        for question in questions(turns):
            session.thinking, text = question.thinks, question.text + question.soft
            ahead = _read_ahead(session) if prepares else 0
            prompt = session.prompt_ids([*session.messages, {"role": "user", "content": text}])
            stats = session.ask(text).stats
            on_template = _cached_ids(session)[: len(prompt)] == prompt
            rows.append(
                Row(stats.prompt_tokens, stats.prompt_tokens - stats.cached_tokens, ahead, on_template)
            )
    return rows


def _read_ahead(session: Any) -> int:
    """Prefill ahead and wait. Returns the number of tokens."""
    from mlx_qwen3.cache.prompt_cache import common_prefix

    before = _cached_ids(session)
    session.prefill_ahead()
    session._jobs.job.finished.wait()
    after = _cached_ids(session)
    return len(after) - common_prefix(before, after)


def _cached_ids(session: Any) -> list[int]:
    cache = session._cache.cache
    return list(cache.ids) if cache is not None else []


def server(model: str, turns: int) -> list[Row]:
    """Run `mlx_lm.server`, whose replies report the cached tokens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "mlx_lm", "server", "--model", model, "--port", str(port)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    messages: list[dict[str, str]] = []
    rows = []
    try:
        _wait_for(port)
        for question in questions(turns):
            messages.append({"role": "user", "content": question.text + question.soft})
            reply = _post(port, messages, question.thinks)
            message, usage = reply["choices"][0]["message"], reply["usage"]
            messages.append({"role": "assistant", "content": message.get("content") or ""})
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            rows.append(Row(usage["prompt_tokens"], usage["prompt_tokens"] - cached))
    finally:
        process.terminate()
        process.wait()
    return rows


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _post(port: int, messages: list[dict[str, str]], thinks: bool) -> Any:
    body = {
        "messages": messages,
        "temperature": 0,
        "max_tokens": MOST_TOKENS,
        "chat_template_kwargs": {"enable_thinking": thinks},
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def chat(model: str, turns: int) -> list[Row]:
    """Run the loop of `mlx_lm.chat` on the questions, counting the tokens it gives its model."""
    from unittest import mock

    from mlx_lm import chat as program

    messages: list[dict[str, str]] = []
    fed: list[int] = []  # all tokens given to the cache
    rows: list[Row] = []
    asked = [question.text + ("" if question.thinks else " /no_think") for question in questions(turns)]
    generate = program.stream_generate

    def count(net: Any, tokenizer: Any, prompt: list[int], **options: Any) -> Iterator[Any]:
        messages.append({"role": "user", "content": asked[len(rows)]})
        fed.extend(prompt)
        template = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        rows.append(Row(len(fed), len(prompt), is_on_template=fed == list(template)))
        text = ""
        for response in generate(net, tokenizer, prompt, **options):
            text += response.text
            fed.append(response.token)
            yield response
        messages.append({"role": "assistant", "content": text})

    class Person:
        """Types the questions, then q."""

        def __init__(self, *_: Any, **__: Any):
            self._lines = iter([*asked, "q"])
            self.say_bye = self.stream_token = self.end_turn = self.nothing

        def nothing(self, *_: Any) -> None:
            """Says nothing."""

        def prompt(self) -> str:
            return next(self._lines)

        def __enter__(self) -> Person:
            return self

        def __exit__(self, *_: Any) -> None:
            """Leaves."""

    arguments = ["mlx_lm.chat", "--model", model, "--temp", "0", "--max-tokens", str(MOST_TOKENS)]
    with (
        mock.patch.object(program, "ChatUI", Person),
        mock.patch.object(program, "stream_generate", count),
        mock.patch.object(sys, "argv", arguments),
    ):
        program.main()
    return rows


def show(name: str, rows: list[Row]) -> None:
    read, later = [row.read for row in rows], [row for row in rows[1:] if not row.is_on_template]
    lost = f"from turn {rows.index(later[0]) + 1}" if later else "never"
    print(
        f"| {name} | {statistics.median(read):.0f} | {max(read)} | {sum(read):,} "
        f"| {sum(row.ahead for row in rows):,} | {rows[-1].prompt:,} | {lost} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--model", default="demo", help="demo, or a folder that mlx-lm can load, too")
    options = parser.parse_args()
    from mlx_qwen3.checkpoint import resolve

    folder = str(Path(resolve(options.model)))
    print(
        "| engine | read after Enter: median | most | in all | read ahead | last prompt | off the template |"
    )
    print("|---|---|---|---|---|---|---|")
    engines: dict[str, Callable[[], list[Row]]] = {
        "mlx_qwen3, as in its chat": lambda: ours(folder, options.turns, True, None),
        "the same, budget of 16": lambda: ours(folder, options.turns, True, 16),
        "mlx_qwen3, without reading ahead": lambda: ours(folder, options.turns, False, None),
        "mlx_lm.server": lambda: server(folder, options.turns),
        "mlx_lm.chat": lambda: chat(folder, options.turns),
    }
    for name, run in engines.items():
        show(name, run())


if __name__ == "__main__":
    main()
