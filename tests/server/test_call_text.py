"""The arguments of a call while they are written: what a client joins is the JSON of the finished call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_qwen3.server.call_text import CallText

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(), VALUES, max_size=4)


def joined(pieces: list[str], arguments: dict[str, Any]) -> str:
    text = CallText()
    sent = [text.feed(piece) for piece in pieces]
    return "".join(sent) + text.finish(arguments)


@settings(max_examples=150, deadline=None)
@given(ARGUMENTS, st.sampled_from([None, 2]), st.data())
def test_strict_json_is_passed_on_as_it_is(arguments: dict[str, Any], indent: int | None, data: Any) -> None:
    text = json.dumps(arguments, indent=indent, ensure_ascii=data.draw(st.booleans()))
    cut = data.draw(st.integers(0, len(text)))
    assert joined([text[:cut], text[cut:]], arguments) == text


@settings(max_examples=150, deadline=None)
@given(ARGUMENTS, st.sampled_from([None, 2]), st.data())
def test_what_was_cut_off_is_completed(arguments: dict[str, Any], indent: int | None, data: Any) -> None:
    text = json.dumps(arguments, indent=indent, ensure_ascii=False)
    cut = data.draw(st.integers(0, len(text)))
    assert json.loads(joined([text[:cut]], arguments)) == arguments


@settings(max_examples=150, deadline=None)
@given(ARGUMENTS, st.text(max_size=10), st.data())
def test_what_is_no_json_is_held_back_and_written_anew(
    arguments: dict[str, Any], noise: str, data: Any
) -> None:
    text = json.dumps(arguments, ensure_ascii=False)
    cut = data.draw(st.integers(0, len(text)))
    spoiled = text[:cut] + noise
    writing = CallText()
    sent = writing.feed(spoiled)
    assert spoiled.startswith(sent)
    if text.startswith(sent):  # what the noise added may be another value's beginning, which nothing mends
        assert json.loads(sent + writing.finish(arguments)) == arguments


@pytest.mark.parametrize(
    ("spelled", "sent"),
    [
        ("{'city': 'Paris'}", "{"),
        ("{\"city\": 'Paris'}", '{"city": '),
        ("<parameter=city>Paris</parameter>", ""),
        ('{"city": "Paris",}', '{"city": "Paris",'),
        ('{"city": "Par\nis"}', '{"city": "Par'),
        ("", ""),
    ],
)
def test_repaired_calls(spelled: str, sent: str) -> None:
    arguments = {"city": "Par\nis"} if "\n" in spelled else {"city": "Paris"}
    text = CallText()
    assert text.feed(spelled) == sent
    if not sent.endswith(","):  # nothing but another argument can follow a comma
        assert json.loads(sent + text.finish(arguments)) == arguments


@pytest.mark.parametrize(
    "text",
    [
        '{"a":01}',
        '{"a":.5}',
        "{a:1}",
        '{"a":1,}',
        '{"a":"\n"}',
        "[1]",
        '{"a":+1}',
        '{"a":1]',
        '{"a" 1}',
        '{"a":[1,]}',
        '{"a":tru1}',
        '{"a":"\\x"}',
        '{"a":1}x',
        '{"a":1e}',
        "{,}",
        '{"a"}',
        '{"a":-}',
        '{"a":"\\u12g4"}',
    ],
)
def test_only_strict_json_passes(text: str) -> None:
    assert CallText().feed(text) != text
