"""Compares the parsers of this package and of mlx-lm (`pip install mlx-lm`) on the corpus.

    python tests/corpus/compare.py [--calls FILE]

For each family of outputs, counts those that gave exactly the calls meant, those that gave a call that was
not meant, those with broken calls that gave no error, and those that raised. A line of FILE is the result of
another program for the same line: `null` (an exception) or a list of [name, arguments].
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlx_qwen3.events import ToolCall
from mlx_qwen3.parsing import StreamParser

Calls = list[list[Any]]
FAMILIES = ("right", "broken", "hopeless", "hostile")


def ours(line: dict[str, Any]) -> tuple[Calls, int]:
    """The calls, and the number of errors that the model gets."""
    schemas = None
    if line["tools"] is not None:
        schemas = {name: {"properties": tool} for name, tool in line["tools"].items()}
    parser = StreamParser(None, line["thinking"], line["format"], tool_schemas=schemas)
    events = []
    for piece in line["stream"]:
        events += parser.push_special_token(piece[0]) if isinstance(piece, list) else parser.push_text(piece)
    calls = [event for event in events + parser.finish() if isinstance(event, ToolCall)]
    good = [[call.name, call.arguments] for call in calls if call.error is None]
    return good, len(calls) - len(good)


def mlx_lm(line: dict[str, Any]) -> tuple[Calls, int]:
    """The calls that mlx-lm's server finds: its state machine, then its parser for the format."""
    from mlx_lm.generate import TextStateMachine, make_text_state_machine
    from mlx_lm.server import ToolCallFormatter
    from mlx_lm.tool_parsers import json_tools, qwen3_coder

    parser = qwen3_coder if line["format"] == "xml" else json_tools
    tokenizer = SimpleNamespace(
        has_thinking=True,
        think_start="<think>",
        think_end="</think>",
        has_tool_calling=line["format"] is not None,
        tool_call_start=parser.tool_call_start,
        tool_call_end=parser.tool_call_end,
        response_transitions={},
        structural_markers=[],
    )
    state = make_text_state_machine(tokenizer).make_state("reasoning" if line["thinking"] else "normal")
    state, segments = TextStateMachine.split(state, "".join("".join(piece) for piece in line["stream"]))
    state, flushed, current = TextStateMachine.flush(state)
    texts, before, text = [], None, ""
    for name, piece in [*segments, (current, flushed)]:
        if name == "tool":
            text += piece
        elif before == "tool":
            texts, text = [*texts, text], ""
        before = name
    texts += [text] if text else []
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}
        for name, properties in (line["tools"] or {}).items()
    ]
    calls = [call["function"] for call in ToolCallFormatter(parser.parse_tool_call, tools)(texts)]
    return [[call["name"], json.loads(call["arguments"])] for call in calls], 0


def from_file(calls: list[Any]) -> Any:
    """A parser that returns the results of another program."""
    answers = iter(calls)

    def parse(_: dict[str, Any]) -> tuple[Calls, int]:
        answer = next(answers)
        if answer is None:
            raise ValueError("it raised")
        return [call for call in answer if call is not None], answer.count(None)

    return parse


def judge(line: dict[str, Any], parse: Any) -> set[str]:
    """The verdicts on one line."""
    meant = [row[1:] for row in line["expect"] if row[0] == "call"]
    broken = sum(row[0] == "error" for row in line["expect"])
    try:
        calls, told = parse(line)
    except Exception:  # noqa: BLE001  counted
        return {"raised"}
    verdicts = {"exact"} if calls == meant else set()
    if any(call not in meant for call in calls):
        verdicts.add("not meant")
    if len(calls) + told < len(meant) + broken:
        verdicts.add("vanished")
    return verdicts


def main() -> None:
    """Print the table."""
    logging.disable()  # mlx-lm warns of each call it drops
    options = argparse.ArgumentParser()
    options.add_argument("--calls", type=Path, action="append", default=[])
    file = Path(__file__).with_name("outputs.jsonl")
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    parsers = {"mlx_qwen3": ours, "mlx_lm": mlx_lm}
    for path in options.parse_args().calls:
        parsers[path.stem] = from_file([json.loads(row) for row in path.read_text("utf-8").splitlines()])
    print("| parser | family | outputs | exactly the calls meant | a call not meant | vanished | raised |")
    print("|---|---|---|---|---|---|---|")
    for name, parse in parsers.items():
        counts = {family: Counter[str]() for family in FAMILIES}
        for line in lines:
            counts[line["family"]].update([*judge(line, parse), "all"])
        for family, count in counts.items():
            columns = [count[key] for key in ("all", "exact", "not meant", "vanished", "raised")]
            print(f"| {name} | {family} | {' | '.join(map(str, columns))} |")


if __name__ == "__main__":
    main()
