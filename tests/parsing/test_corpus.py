"""Right, broken and hostile outputs of models. tests/corpus/make.py describes a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_qwen3.events import AnswerDelta, Event, ThinkingDelta, ToolCall, ToolCallDelta, ToolCallStart
from mlx_qwen3.parsing import StreamParser, merge_deltas

CORPUS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "corpus" / "outputs.jsonl").read_text("utf-8").splitlines()
]
IDS = [f"{number}-{line['note']}" for number, line in enumerate(CORPUS)]


def make_parser(line: dict[str, Any], special_tokens: tuple[str, ...] | None) -> StreamParser:
    schemas = None
    if line["tools"] is not None:
        schemas = {name: {"type": "object", "properties": tool} for name, tool in line["tools"].items()}
    return StreamParser(special_tokens, line["thinking"], line["format"], tool_schemas=schemas)


def run(line: dict[str, Any], size: int, spelled: bool = False) -> list[Event]:
    """The events of a line, its text cut into pieces of `size`; `spelled`: no tag is a token."""
    parser = make_parser(line, () if spelled else None)
    stream = ["".join("".join(piece) for piece in line["stream"])] if spelled else line["stream"]
    events: list[Event] = []
    for piece in stream:
        if isinstance(piece, list):
            events += parser.push_special_token(piece[0])
        else:
            for start in range(0, len(piece), size):
                events += parser.push_text(piece[start : start + size])
    return merge_deltas(events + parser.finish())


def summarize(events: list[Event]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for event in events:
        match event:
            case ThinkingDelta(text):
                rows.append(["thinking", text])
            case AnswerDelta(text):
                rows.append(["answer", text])
            case ToolCall(error=None):
                rows.append(["call", event.name, event.arguments])
            case ToolCall():
                rows.append(["error", event.name, event.error])
    return rows


def check(line: dict[str, Any], events: list[Event]) -> None:
    rows = summarize(events)
    for row, expected in zip(rows, line["expect"], strict=False):
        if expected[0] == row[0] == "error":
            assert expected[2] in row[2]
            row[2] = expected[2]
    assert rows == line["expect"]


def test_the_corpus_is_large_and_mixed():
    families = [line["family"] for line in CORPUS]
    assert len(CORPUS) >= 300
    assert {family: families.count(family) >= 50 for family in families} == dict.fromkeys(
        ("right", "hostile", "broken", "hopeless"), True
    )


@pytest.mark.parametrize("line", CORPUS, ids=IDS)
def test_events_are_as_expected_in_any_pieces(line):
    whole = run(line, 1_000_000)
    check(line, whole)
    assert run(line, 1) == run(line, 3) == whole


@pytest.mark.parametrize(
    "line", [line for line in CORPUS if line["either_way"]], ids=lambda line: line["note"]
)
def test_spelled_tags_do_the_same_where_there_are_no_tokens(line):
    check(line, run(line, 5, spelled=True))


def test_streamed_arguments_are_part_of_the_call():
    for line in CORPUS:
        starts, deltas = {}, {}
        for event in run(line, 2):
            match event:
                case ToolCallStart(index, name):
                    starts[index] = name
                case ToolCallDelta(index, text):
                    deltas[index] = deltas.get(index, "") + text
                case ToolCall():
                    assert starts[event.index] == event.name, line["note"]
                    assert deltas.get(event.index, "").strip() in event.raw, line["note"]


def test_every_error_tells_the_model_what_to_do_and_holds_no_tag():
    for line in CORPUS:
        for event in run(line, 1000):
            if isinstance(event, ToolCall) and event.error:
                assert "\n" not in event.error
                assert len(event.error) < 400
                assert any(word in event.error for word in ("again", "The tools are", "without them"))
                assert "tool_call>" not in event.error
