"""Random and broken requests to a server: none may end in a 500, hang, or leave anything behind.

    python -m benchmarks.server_fuzz [--requests 20000] [--clients 16] [--seed 0] [--valid]

Each request starts from a valid one and is changed at random: values of other types, missing and unknown
fields, extreme numbers, deep nesting, odd text, cut-off JSON, odd headers and methods. Some clients leave in
the middle of the answer. Answers are read with the types of the packages `openai` and `anthropic`. At the end
no request may run. The memory of the process is reported ten times on the way.

With `--valid` all requests are valid, and each has to be answered: chats, messages, responses and completions
of random texts, with and without tools, schemas, thinking, streams and several answers.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.server_answers import fault
from benchmarks.server_processes import running

SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "enum": ["x", "y"]}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
SAMPLING: dict[str, Any] = {
    "temperature": 0.7, "top_p": 0.9, "max_tokens": 3, "seed": 1, "stop": ["x"], "stream": False,
    "presence_penalty": 0.1, "frequency_penalty": 0.1, "logit_bias": {"5": 1}, "n": 1, "user": "u",
}  # fmt: skip
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": \"x\"}"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "4"},
]  # fmt: skip
CHAT: dict[str, Any] = {
    **SAMPLING, "model": "demo", "messages": MESSAGES, "tools": [TOOL], "tool_choice": "auto", "top_k": 5,
    "parallel_tool_calls": False, "logprobs": True, "top_logprobs": 2, "reasoning_effort": "low",
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
    "stream_options": {"include_usage": True}, "chat_template_kwargs": {"enable_thinking": False},
}  # fmt: skip
ANTHROPIC: dict[str, Any] = {
    "model": "demo", "max_tokens": 3, "system": [{"type": "text", "text": "Be brief."}], "stream": True,
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}],
    "tool_choice": {"type": "auto"}, "thinking": {"type": "disabled"},
}  # fmt: skip
RESPONSES: dict[str, Any] = {
    "model": "demo", "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
    "max_output_tokens": 3, "stream": True, "store": False, "reasoning": {"effort": "none"},
    "text": {"format": {"type": "text"}},
}  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {**SAMPLING, "model": "demo", "prompt": ["a", [5, 6]], "logprobs": 1, "echo": False},
    "/v1/messages": ANTHROPIC,
    "/v1/messages/count_tokens": {key: ANTHROPIC[key] for key in ("model", "messages", "system", "tools")},
    "/v1/responses": RESPONSES,
    "/v1/embeddings": {"model": "demo", "input": ["a", "b"], "dimensions": 4, "encoding_format": "base64"},
    "/v1/rerank": {"model": "demo", "query": "a", "documents": ["b", {"text": "c"}], "top_n": 1},
    "/tokenize": {"content": "hi", "with_pieces": True},
    "/detokenize": {"tokens": [5, 6]},
}
WORDS = (
    "the",
    "a",
    "sum",
    "of",
    "is",
    "what",
    "time",
    "hello",
    "Paris",
    "47",
    "please",
    "list",
    "code",
    "zebra",
)
PLAIN = (
    "/",
    "/health",
    "/metrics",
    "/status",
    "/slots",
    "/v1/models",
    "/v1/models/demo",
    "/v1/nothing",
    "/..%2f",
)
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, 2**31, 2**63, 10**30, -(10**30), 1e308, "",
    "x", "\x00", "\ud800", "é" * 50,
    "<|im_end|>", "a" * 5000,
    [], {}, [[]], [None], {"a": None}, [1, "a"], {"type": "x"}, "auto", "none", "NaN",
]  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """One request. leaves: after how many seconds the client hangs up. is_valid: it has to be answered."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    leaves: float | None = None
    is_valid: bool = False


def attempts(seed: int, make: Callable[[random.Random], Attempt]) -> Iterator[Attempt]:
    """Requests without end."""
    draw = random.Random(seed)
    while True:
        yield make(draw)


def valid_attempt(draw: random.Random) -> Attempt:
    """A request that a client could make."""
    path = draw.choice(["/v1/chat/completions"] * 3 + ["/v1/messages", "/v1/responses", "/v1/completions"])
    text = " ".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 100)))
    body: dict[str, Any] = {"model": "demo", "stream": draw.random() < 0.5, "temperature": draw.random()}
    message = {"role": "user", "content": text}
    if path == "/v1/completions":
        body |= {"prompt": text, "max_tokens": 8, "n": draw.choice([1, 1, 3])}
    elif path == "/v1/chat/completions":
        body |= {"messages": [message], "max_tokens": 8, "enable_thinking": draw.random() < 0.5}
        body |= draw.choice([{}, {"n": 2}, {"logprobs": True}, {"tools": [TOOL]}, {"seed": 1}, {"stop": "a"}])
    elif path == "/v1/messages":
        body |= {"messages": [message], "max_tokens": 8}
        body |= draw.choice([{}, {"tools": ANTHROPIC["tools"]}, {"system": text[:200]}])
    else:
        body |= {"input": text, "max_output_tokens": 8}
        body |= draw.choice([{}, {"store": False}, {"reasoning": {"effort": "none"}}])
    if path == "/v1/chat/completions" and draw.random() < 0.1:
        body = {**body, "tools": [], "response_format": CHAT["response_format"]}
    return Attempt(
        "POST", path, json.dumps(body).encode(), {"content-type": "application/json"}, is_valid=True
    )


def one_attempt(draw: random.Random) -> Attempt:
    """One random request."""
    if draw.random() < 0.05:
        return Attempt(draw.choice(["GET", "HEAD", "PUT", "DELETE", "OPTIONS"]), draw.choice(PLAIN), b"")
    path = draw.choice(list(BODIES))
    body = copy.deepcopy(BODIES[path])
    for _ in range(draw.choice([0, 1, 1, 1, 2, 3, 6])):
        change(body, draw)
    if draw.random() < 0.3 and "stream" in body:
        body["stream"] = True
    data = json.dumps(body).encode()
    if draw.random() < 0.04:
        data = data[: draw.randrange(len(data))]
    if draw.random() < 0.02:
        data = draw.randbytes(draw.randrange(200))
    if draw.random() < 0.02:
        data = b'{"messages":' + b"[" * draw.randrange(3000)
    headers = {
        "content-type": draw.choice(["application/json"] * 20 + ["text/plain", "", "application/x+json"])
    }
    leaves = draw.random() * 0.1 if draw.random() < 0.05 else None
    return Attempt("POST", path, data, headers, leaves)


def change(value: Any, draw: random.Random) -> None:
    """Change one random place inside a JSON object or list."""
    while True:
        if isinstance(value, dict):
            if draw.random() < 0.1:
                value[draw.choice(["unknown", "n", "stop", "tools", "messages", "type"])] = odd(draw)
                return
            if not value:
                return
            key: Any = draw.choice(list(value))
        elif isinstance(value, list) and value:
            key = draw.randrange(len(value))
        else:
            return
        if isinstance(value[key], dict | list) and value[key] and draw.random() < 0.7:
            value = value[key]
            continue
        if isinstance(value, dict) and draw.random() < 0.2:
            del value[key]
        else:
            value[key] = odd(draw)
        return


def odd(draw: random.Random) -> Any:
    """An odd value; at times one inside others."""
    value: Any = copy.deepcopy(draw.choice(ODD))
    for _ in range(draw.choice([0, 0, 0, 1, 2, 40])):
        value = [value] if draw.random() < 0.5 else {draw.choice(["a", "type", "items", "$ref"]): value}
    return value


async def send(client: httpx.AsyncClient, attempt: Attempt) -> httpx.Response | None:
    """The answer, None where the client left. Raises httpx.HTTPError where there was none."""
    try:
        async with asyncio.timeout(attempt.leaves if attempt.leaves is not None else 120):
            return await client.request(
                attempt.method, attempt.path, content=attempt.body, headers=attempt.headers
            )
    except TimeoutError:
        if attempt.leaves is None:
            raise httpx.ReadTimeout("no answer in 120 s") from None
        return None


def problem(attempt: Attempt, answer: httpx.Response) -> str:
    """What is wrong with an answer; empty if nothing is."""
    kind = answer.headers.get("content-type", "")
    found = fault(attempt.path, answer.status_code, kind, answer.content)
    if not found and (answer.status_code == 200 if attempt.is_valid else answer.status_code < 500):
        return ""
    body = attempt.body[:300]
    return f"{attempt.method} {attempt.path} -> {answer.status_code}: {body!r} {found}"


async def fuzz(
    url: str, requests: int, clients: int, seed: int, make: Callable[[random.Random], Attempt] = one_attempt
) -> tuple[Counter[int], list[str]]:
    """Send requests: how often each status came, 0 where the client left; and what was wrong."""
    stream, statuses, problems = attempts(seed, make), Counter[int](), list[str]()
    left = iter(range(requests))

    async def one_client(client: httpx.AsyncClient) -> None:
        for _ in left:
            attempt = next(stream)
            try:
                answer = await send(client, attempt)
            except httpx.HTTPError as error:
                problems.append(f"{type(error).__name__} {error}: {attempt.path} {attempt.body[:300]!r}")
                continue
            statuses[0 if answer is None else answer.status_code] += 1
            if answer is not None and (found := problem(attempt, answer)):
                problems.append(found)

    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await asyncio.gather(*(one_client(client) for _ in range(clients)))
        for _ in range(100):  # what was left behind ends at once
            if not (await client.get("/slots")).json():
                break
            await asyncio.sleep(0.1)
        else:
            problems.append("requests run although nobody waits for them")
    return statuses, problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--valid", action="store_true")
    options = parser.parse_args()
    from mlx_qwen3.checkpoint import resolve

    make = valid_attempt if options.valid else one_attempt
    with running("mlx-qwen3", Path(resolve("demo"))) as server:
        url = server.url
        total = 0
        for part in range(10):
            start = time.perf_counter()
            count = options.requests // 10
            made = fuzz(url, count, options.clients, options.seed + part, make)
            statuses, problems = asyncio.run(made)
            total += count
            status = httpx.get(f"{url}/status", timeout=30).json()
            seconds = time.perf_counter() - start
            print(
                f"{total:,} requests, {count / seconds:.0f} a second, {dict(sorted(statuses.items()))}, "
                f"MLX {status['memory']['active_bytes'] / 1e6:.1f} MB, process "
                f"{status['memory']['process_bytes'] / 1e6:.0f} MB, {len(problems)} problems",
                flush=True,
            )
            for line in problems[:10]:
                print("  " + line)


if __name__ == "__main__":
    main()
