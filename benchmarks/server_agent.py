"""An agent session over HTTP: the tokens that each server prefills in each request, and its waiting times.

    python -m benchmarks.server_agent [--turns 30] [--model demo] [--think] [--repeat 1]

A client with three tools keeps a conversation of `--turns` messages of a user, as an editor's agent does: it
sends all of it again with each request, runs the tools that the model calls, and sends their results. Like
most clients it leaves thinking out. Servers take turns in fresh processes with the same checkpoint. Sampling
is greedy. Each engine writes its own answers, so the conversations differ a little.

New tokens are those of a prompt beyond the one before and what was generated after it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.server_processes import SERVERS, running

SYSTEM = "You are a helpful assistant. Use the tools that you have. " + " ".join(
    f"Rule {number}: be brief, be exact, and never guess what a tool can tell you." for number in range(3)
)
MOST_TOKENS = 200
MOST_STEPS = 5
ARGUMENTS = {"llama.cpp": ("--parallel", "1", "--context", "16384")}  # one conversation, of this length


def tool(name: str, description: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": "string", "description": meaning} for key, meaning in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    tool("get_time", "The time now."),
    tool("calculator", "Calculates an expression.", expression="Such as 47 * 85."),
    tool("get_weather", "The weather now.", city="The city's name."),
]


def questions(turns: int) -> list[str]:
    draw = random.Random(5)
    kinds = [
        "What is the weather in {}?",
        "What time is it?",
        "What is {} * {}?",
        "hello",
        "What is {} + {}?",
    ]
    cities = ["Paris", "Berlin", "Tokyo", "Oslo", "Rome"]
    made = []
    for number in range(turns):
        kind = kinds[number % len(kinds)]
        values = [draw.choice(cities)] if "weather" in kind else [draw.randrange(10, 99) for _ in range(2)]
        made.append(kind.format(*values[: kind.count("{}")]))
    return made


def run_tool(name: str, arguments: str) -> str:
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        return "the arguments are not JSON"
    if name == "get_weather":
        return f"{given.get('city')}: 18 degrees, light rain"
    if name == "get_time":
        return "2026-11-27 14:05"
    numbers = str(given.get("expression", "")).replace("*", " ").replace("+", " ").split()
    values = [int(part) for part in numbers if part.isdigit()]
    return str(sum(values) if "+" in str(given.get("expression")) else _product(values))


def _product(values: list[int]) -> int:
    result = 1
    for value in values:
        result *= value
    return result


@dataclass(frozen=True)
class Row:
    """One request. seconds: until the first token."""

    prompt: int
    prefilled: int
    new: int
    seconds: float


def play(url: str, model: str, turns: int, think: bool, pause: float) -> list[Row]:
    """The session on one server."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}]
    rows: list[Row] = []
    held = 0  # tokens of the latest prompt and of what followed it
    with httpx.Client(base_url=url, timeout=600) as client:
        for text in questions(turns):
            messages.append({"role": "user", "content": text})
            for _ in range(MOST_STEPS):
                message, usage, seconds = ask(client, model, messages, think)
                cached = usage["prompt_tokens_details"]["cached_tokens"]
                prompt = usage["prompt_tokens"]
                rows.append(Row(prompt, prompt - cached, max(0, prompt - held), seconds))
                held = prompt + usage["completion_tokens"]
                messages.append(message)
                calls = message.get("tool_calls") or []
                for call in calls:
                    result = run_tool(call["function"]["name"], call["function"]["arguments"])
                    messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
                if not calls:
                    break
            time.sleep(pause)
    return rows


def ask(
    client: httpx.Client, model: str, messages: list[dict[str, Any]], think: bool
) -> tuple[dict[str, Any], dict[str, Any], float]:
    """A streamed request: the message, its usage, and the seconds until its first token."""
    body = {
        "model": model,
        "messages": messages,
        "tools": TOOLS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": MOST_TOKENS,
        "chat_template_kwargs": {"enable_thinking": think},
    }
    content, first = "", 0.0
    calls: dict[int, dict[str, str]] = {}
    usage: dict[str, Any] = {}
    start = time.perf_counter()
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                delta = choice["delta"]
                if any(delta.get(key) for key in ("content", "reasoning", "tool_calls")):
                    first = first or time.perf_counter() - start
                content += delta.get("content") or ""
                for call in delta.get("tool_calls") or []:
                    known = calls.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
                    known["id"] = call.get("id") or known["id"]
                    known["name"] = call["function"].get("name") or known["name"]
                    known["arguments"] += call["function"].get("arguments") or ""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
            for c in calls.values()
        ]
    return message, usage, first or time.perf_counter() - start


def show(name: str, rows: list[Row]) -> None:
    later = rows[1:]
    beyond = [row.prefilled - row.new for row in later]
    print(
        f"| {name} | {len(rows)} | {rows[-1].prompt:,} | {sum(row.new for row in rows):,} "
        f"| {sum(row.prefilled for row in rows):,} | {statistics.median(row.prefilled for row in later):.0f} "
        f"| {max(row.prefilled for row in later)} | {max(beyond)} "
        f"| {statistics.median(row.seconds for row in later) * 1000:.0f} ms |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--model", default="demo", help="demo, or a folder that mlx-lm can load, too")
    parser.add_argument("--think", action="store_true")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument(
        "--pause", type=float, default=0.3, help="Seconds between an answer and the next message."
    )
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=list(SERVERS))
    options = parser.parse_args()
    from mlx_qwen3.checkpoint import resolve

    folder = Path(resolve(options.model))
    print("| server | requests | last prompt | new | prefilled | median | most | most beyond new | TTFT |")
    print("|---|---|---|---|---|---|---|---|---|")
    for _ in range(options.repeat):
        for name in options.servers:
            with running(name, folder, *ARGUMENTS.get(name, ())) as server:
                show(name, play(server.url, server.model, options.turns, options.think, options.pause))


if __name__ == "__main__":
    main()
