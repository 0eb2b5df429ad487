"""The stream parser: the same events for any pieces of the text, and no exception for any text."""

from __future__ import annotations

import os
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parse_text import parse_text

from mlx_qwen3.events import AnswerDelta, Event, ThinkingDelta, ToolCall, ToolCallDelta, ToolCallStart
from mlx_qwen3.parsing import StreamParser, merge_deltas

CALL = '<tool_call>\n{"name": "get_time", "arguments": {"city": "Paris"}}\n</tool_call>'
TAG = re.compile("(<think>|</think>|<tool_call>|</tool_call>|<\\|im_start\\|>)")
ATOMS = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<|im_start|>", "<function=f>", "</function>"),
    *("<parameter=a>", "</parameter>", '{"name": "f"', '"arguments"', ":", ",", "{", "}", "[", "]", '"', "'"),
    *("`", "```", "\n", "\n\n", " ", "x", "é", "\\", "\\u00e9", "\\ud83d", "1", "True", "<", ">", "</"),
    *(CALL, "<function=f>\n<parameter=a>\n1\n</parameter>\n</function>"),
]
texts = st.lists(st.sampled_from(ATOMS), max_size=25).map("".join)
modes = st.fixed_dictionaries(
    {"thinking": st.booleans(), "tool_format": st.sampled_from(["json", "xml", None])}
)
TOOLS: dict[str, dict[str, object]] = {"f": {}, "get_time": {}}


def run(text: str, cuts: set[int] = frozenset(), real: bool = True, **options) -> list[Event]:
    """The events of `text`, cut at the given positions; `real`: its tags are special tokens."""
    parser = StreamParser(None if real else (), tool_schemas=TOOLS, **options)
    events: list[Event] = []
    for start, piece in _pieces(text, real):
        if real and TAG.fullmatch(piece):
            events += parser.push_special_token(piece)
            continue
        begin = 0
        for end in [*sorted(cut - start for cut in cuts if 0 < cut - start < len(piece)), len(piece)]:
            events += parser.push_text(piece[begin:end])
            begin = end
    return events + parser.finish()


def _pieces(text: str, real: bool) -> list[tuple[int, str]]:
    parts = TAG.split(text) if real else [text]
    starts = [sum(map(len, parts[:i])) for i in range(len(parts))]
    return [(start, part) for start, part in zip(starts, parts, strict=True) if part]


@settings(max_examples=300, deadline=None)
@given(texts, st.sets(st.integers(0, 300)), modes, st.booleans())
def test_any_split_gives_the_same_events(text, cuts, mode, real):
    whole = merge_deltas(run(text, real=real, **mode))
    assert merge_deltas(run(text, cuts, real, **mode)) == whole
    assert merge_deltas(run(text, set(range(len(text))), real, **mode)) == whole


def test_random_strings_raise_nothing():
    chance = random.Random(6)
    for _ in range(20_000 if os.environ.get("MLX_QWEN3_LONG_TESTS") else 4000):
        text = "".join(chance.choices(ATOMS, k=chance.randrange(12)))
        events = run(text, real=chance.random() < 0.5, tool_format=chance.choice(["json", "xml", None]))
        check_order(events)


def check_order(events: list[Event]) -> None:
    """Every call is announced once, completed once, and its events stand together."""
    open_call, completed = None, 0
    for event in events:
        match event:
            case ToolCallStart():
                assert open_call is None
                assert event.index == completed
                open_call = event.index
            case ToolCallDelta():
                assert event.index == open_call
                assert event.text
            case ToolCall():
                assert event.index == open_call
                assert (event.arguments is None) == (event.error is not None)
                open_call, completed = None, completed + 1
            case AnswerDelta() | ThinkingDelta():
                assert open_call is None
                assert event.text
    assert open_call is None


@pytest.mark.parametrize("pieces", [["\n\n", "\n\nanswer"], ["\n", "\n", "\n", "\n", "answer"]])
def test_blank_lines_around_thinking_belong_to_the_format(pieces):
    parser = StreamParser()
    half = len(pieces) // 2
    events = parser.push_special_token("<think>")
    for piece in pieces[:half]:
        events += parser.push_text(piece)
    events += parser.push_special_token("</think>")
    for piece in pieces[half:]:
        events += parser.push_text(piece)
    assert merge_deltas(events + parser.finish()) == [AnswerDelta("answer")]


def test_text_is_handed_on_as_soon_as_it_is_certain():
    parser = StreamParser(thinking=True)
    assert parser.push_text("\nLet me") == [ThinkingDelta("Let me")]
    assert parser.push_text(" see <think") == [ThinkingDelta(" see <think")]
    assert parser.push_text("\n") == []
    assert parser.push_special_token("</think>") == []
    assert parser.push_text("\n\nYes") == [AnswerDelta("Yes")]


def test_a_call_is_announced_before_its_arguments_and_they_are_streamed():
    parser = StreamParser()
    assert parser.push_special_token("<tool_call>") == []
    assert parser.push_text('\n{"name": "get_time"') == [ToolCallStart(0, "get_time")]
    assert parser.push_text(', "arguments": {"ci') == [ToolCallDelta(0, '{"ci')]
    assert parser.push_text('ty": "Oslo"}}') == [ToolCallDelta(0, 'ty": "Oslo"}')]
    assert parser.push_text("\n") == []
    (call,) = parser.push_special_token("</tool_call>")
    assert call == ToolCall(
        0, "get_time", {"city": "Oslo"}, '{"name": "get_time", "arguments": {"city": "Oslo"}}'
    )


def test_spelled_tags_are_text_where_the_tokenizer_has_tokens():
    parser = StreamParser()
    text = "<think>no</think>\n" + CALL
    assert merge_deltas(parser.push_text(text) + parser.finish()) == [AnswerDelta(text)]


def test_spelled_tags_count_where_the_tokenizer_has_no_tokens():
    events = parse_text("<think>\nhm\n</think>\n\nSo:\n" + CALL)
    assert events[:3] == [ThinkingDelta("hm"), AnswerDelta("So:"), ToolCallStart(0, "get_time")]


def test_spelled_tags_that_are_talk_stay_where_the_tokenizer_has_no_tokens():
    text = "The tags <think> and </think> are special, </think> is not."
    assert parse_text(text) == [AnswerDelta("The tags <think> and </think> are special,  is not.")]
    assert parse_text("it ends by `</think>`, so\n</think>\n\nok", thinking=True) == [
        ThinkingDelta("it ends by `</think>`, so"),
        AnswerDelta("ok"),
    ]


@pytest.mark.parametrize(
    "schema", [{}, {"type": 5}, {"type": [5, []]}, {"anyOf": 5}, {"oneOf": [5, {"anyOf": None}]}, 5, None]
)
def test_a_schema_may_be_anything(schema):
    text = "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>"
    *_, call = parse_text(text, tool_format="xml", tool_schemas={"f": {"properties": {"a": schema}}})
    assert call.arguments == {"a": "1"}


def test_a_closing_tag_spelled_out_closes_a_complete_call():
    parser = StreamParser()
    events = parser.push_special_token("<tool_call>")
    events += parser.push_text('{"name": "f", "arguments": {"a": "</tool_call>"}}\n</tool_call>\nok')
    *_, call, answer = merge_deltas(events + parser.finish())
    assert call.arguments == {"a": "</tool_call>"}
    assert answer == AnswerDelta("ok")


def test_xml_arguments_are_streamed_without_what_closes_them():
    parser = StreamParser(tool_format="xml")
    events = parser.push_special_token("<tool_call>")
    body = "<function=f>\n<parameter=a>\n</function\n</parameter>\n"
    for char in body + "</function>\n":
        events += parser.push_text(char)
    events += parser.push_special_token("</tool_call>")
    start, delta, call = merge_deltas(events)
    assert start == ToolCallStart(0, "f")
    assert delta == ToolCallDelta(0, body.removeprefix("<function=f>"))
    assert call.arguments == {"a": "</function"}


def test_a_long_call_is_read_in_reasonable_time():
    body = "x = 1\\n" * 20_000
    *_, call = parse_text('<tool_call>{"name": "write", "arguments": {"text": "' + body + '"}}</tool_call>')
    assert isinstance(call, ToolCall)
    assert call.arguments == {"text": "x = 1\n" * 20_000}


def test_importing_the_parser_is_light():
    import subprocess
    import sys

    code = "import sys, mlx_qwen3.parsing; print({'mlx.core', 'pydantic', 'mcp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
