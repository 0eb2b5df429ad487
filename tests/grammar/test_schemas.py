"""Schemas as they come: wrapped, with formats, references and oneOf, and what the errors say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlx_qwen3
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.errors import SchemaError
from mlx_qwen3.grammar import AnswerSchema
from mlx_qwen3.grammar.matcher import MAX_PROBED, compiler_for, lowest_token_id
from mlx_qwen3.grammar.rules import answer_rules
from mlx_qwen3.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(Path(mlx_qwen3.__file__).parent / "demo")


def can_write(tokenizer: Tokenizer, schema: Any, text: str) -> bool:
    """Whether an answer for `schema` may be `text`, byte by byte."""
    compiler = compiler_for(tokenizer).result()
    byte_ids = {token[0]: id_ for id_, token in enumerate(compiler.token_bytes) if len(token) == 1}
    matcher = compiler.matcher(answer_rules(AnswerSchema.of(schema).schema))
    tokens = [*(byte_ids[byte] for byte in text.encode()), compiler.end_id]
    return matcher._matcher.validate_tokens(tokens) == len(tokens)


STRING: dict[str, Any] = {"type": "string"}
STRING_MAP = {"type": "object", "additionalProperties": {"type": "number"}}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (STRING, r'"caf\u00e9"'),
        (STRING, r'"caf\u00E9 \u4f60\u597D"'),
        (STRING, r'"\ud83d\ude00 \uD83C\uDF55"'),
        (STRING, r'"\u0041\u0009\u0000\u2028\uffff"'),
        (STRING, r'"\\u00e9 \" \\ \b\f\n\r\t"'),
        (STRING, '"é 😀 \u2028 /"'),
        (STRING | {"maxLength": 3}, r'"\u00e9\u00e9a"'),
        (STRING_MAP, r'{"\u00e9": 1e5, "": -0.0E-7, "a\"b": 1.5e+10}'),
        ({"type": "array", "items": STRING}, r'["\u00e9"]'),
    ],
)
def test_any_strict_json_can_be_written(schema: Any, text: str, tokenizer: Tokenizer) -> None:
    json.loads(text)
    assert can_write(tokenizer, schema, text)


ANY_TEXT = r"^[\s\S]*$"


@pytest.mark.parametrize(
    ("schema", "frame"),
    [
        (STRING, "%s"),
        (STRING | {"maxLength": 40}, "%s"),
        (STRING | {"pattern": ANY_TEXT}, "%s"),
        (STRING | {"pattern": ANY_TEXT, "maxLength": 40}, "%s"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "{%s: 1}"),
        (
            {
                "type": "object",
                "properties": {"größe": STRING},
                "additionalProperties": STRING | {"pattern": ANY_TEXT},
            },
            '{"n": %s}',
        ),
        ({"type": "object", "patternProperties": {"^x": {"type": "integer"}}}, '{"x\\u00e9": 1, %s: 2}'),
    ],
)
@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12))
def test_what_is_written_parses_to_what_was_meant(
    schema: Any, frame: str, text: str, tokenizer: Tokenizer
) -> None:
    """A model that prefers escapes writes them where they lead on, and the character itself elsewhere."""
    compiler = compiler_for(tokenizer).result()
    byte_ids = {token[0]: id_ for id_, token in enumerate(compiler.token_bytes) if len(token) == 1}
    matcher = compiler.matcher(answer_rules(AnswerSchema.of(schema).schema))
    before, after = frame.split("%s")
    written = b""
    for spellings in [[before], ['"'], *([json.dumps(char)[1:-1], char] for char in text), ['"'], [after]]:
        for spelling in spellings:
            ids = [byte_ids[byte] for byte in spelling.encode()]
            count = 0
            for id_ in ids:
                mask = matcher.mask()
                if not mask[id_ // 8] >> id_ % 8 & 1:
                    break
                matcher.accept(id_)
                count += 1
            written += spelling.encode()[:count]
            if count == len(ids):
                break
            assert count <= 1, f"{spelling!r} was let in by {count} bytes only"  # the backslash
            if count:
                matcher.rollback(1)
                written = written[:-1]
        else:
            pytest.fail(f"{spellings} cannot be written")
    assert json.loads(written) == json.loads(before + json.dumps(text) + after)


@pytest.mark.parametrize("text", [r'"\ud83d"', r'"\ude00"', r'"\ud83d\u0041"', r'"\u00g0"', r'"\x41"'])
def test_what_a_strict_reader_refuses_cannot_be_written(text: str, tokenizer: Tokenizer) -> None:
    assert not can_write(tokenizer, STRING, text)


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        ("time", "23:59:59Z", "23:59:60Z"),
        ("time", "00:00:00.5+01:00", "00:00:60.5+01:00"),
        ("date-time", "2016-12-31T23:59:59Z", "2016-12-31T23:59:60Z"),
        ("date", "2024-02-29", "2023-02-29"),
        ("date", "0001-01-01", "0000-01-01"),
        ("date-time", "0100-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
    ],
)
@pytest.mark.parametrize(
    "further", [{}, {"pattern": "[0-9]"}, {"maxLength": 40}, {"type": ["string", "null"]}]
)
def test_dates_and_times_are_those_that_python_reads(
    form: str, right: str, wrong: str, further: Any, tokenizer: Tokenizer
) -> None:
    schema = {"type": "string", "format": form, **further}
    assert can_write(tokenizer, schema, f'"{right}"')
    assert not can_write(tokenizer, schema, f'"{wrong}"')


@pytest.mark.parametrize("form", ["password", "int32", "json-pointer", "nobody-knows", "regex", "binary"])
def test_an_unknown_format_is_ignored(form: str, tokenizer: Tokenizer) -> None:
    schema = {"type": "object", "properties": {"format": {"type": "string", "format": form}}}
    assert can_write(tokenizer, schema, '{"format": "x"}')


INNER = {"type": "object", "properties": {"schema": {"type": "integer"}}, "required": ["schema"]}


@pytest.mark.parametrize(
    "wrapped",
    [
        {"name": "answer", "strict": True, "schema": INNER},
        {"name": "answer", "description": "an answer", "schema": INNER},
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": INNER}},
        {"type": "json_schema", "name": "answer", "strict": True, "schema": INNER},
    ],
)
def test_openais_wrapper_is_unwrapped(wrapped: Any) -> None:
    assert AnswerSchema.of(wrapped).schema == INNER


def test_a_schema_with_such_property_names_is_no_wrapper() -> None:
    schema = {"type": "object", "properties": {"name": STRING, "schema": {"type": "object"}}}
    assert AnswerSchema.of(schema).schema == schema


def tagged(kind: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"kind": kind, **properties}, "required": ["kind"]}


UNTYPED = {"oneOf": [{"properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in (1, 2)]}
DEFS = {"cat": tagged({"const": "cat"}, lives={"type": "integer"}), "dog": tagged({"enum": ["dog", "wolf"]})}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"$defs": DEFS, "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}]}, '{"kind": "wolf"}'),
        ({"oneOf": [{"type": "integer", "maximum": 2}, {"type": "number", "minimum": 5}]}, "7"),
        ({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 4}]}, '"four"'),
        ({"oneOf": [{"type": "array", "maxItems": 1}, {"type": "array", "minItems": 2}]}, "[]"),
        ({"oneOf": [STRING, {"type": "integer"}, {"type": "null"}]}, "null"),
        ({"oneOf": [{"enum": [1, 2]}, {"const": 3}]}, "3"),
        (UNTYPED, '{"kind": 2}'),
    ],
)
def test_one_of_is_taken_if_its_choices_can_be_told_apart(
    schema: Any, text: str, tokenizer: Tokenizer
) -> None:
    assert can_write(tokenizer, schema, text)


@pytest.mark.parametrize("text", ["1", '"a"', "null", "[]", '{"kind": 3}'])
def test_a_value_that_matches_every_choice_of_one_of_cannot_be_written(
    text: str, tokenizer: Tokenizer
) -> None:
    """`properties` says nothing about what is no object."""
    assert not can_write(tokenizer, UNTYPED, text)


def test_values_that_are_told_apart_only_as_objects_are_not_told_apart() -> None:
    choices = [{"properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in (1, 2)]
    schema = {"oneOf": [tagged(choice) for choice in choices]}  # {"kind": 5} matches both
    with pytest.raises(SchemaError, match="several choices of oneOf"):
        AnswerSchema.of(schema)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (
            {"type": "object", "properties": {"a": {"type": "array", "items": {"not": {}}}}},
            "#/properties/a/items",
        ),
        ({"type": "object", "properties": {"a b": {"pattern": "("}}}, "#/properties/a b"),
        ({"$defs": {"x": {"type": "strin"}}, "$ref": "#/$defs/x"}, "#/$defs/x"),
        ({"anyOf": [STRING, {"oneOf": [{"type": "integer"}, {"type": "number"}]}]}, "#/anyOf/1"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "several choices of oneOf"),
        ({"oneOf": [tagged(STRING), tagged({"const": "a"})]}, "several choices of oneOf"),
    ],
)
def test_a_refusal_names_the_place_and_no_option_of_a_library(schema: Any, place: str) -> None:
    with pytest.raises(SchemaError) as error:
        AnswerSchema.of(schema)
    message = str(error.value)
    assert place in message
    assert "\n" not in message
    for option in ("coerce_one_of", "Enable", "x-guidance", "%json"):
        assert option not in message


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^[a-z]+/[a-z]+/[a-z]+$", '"ab/c'),
        ("^.*foo.*bar$", '"a foo, then ba'),
        ("[0-9]{3}$", '"room 4'),
        (r"^\p{Lu}\p{Ll}+ \p{Lu}\p{Ll}+$", '"Ada'),
        ('^é+"ü$', '"é'),
        ("^(ja|nein), [A-Z]{2}-[0-9]{2,}!$", '"nein'),
    ],
)
def test_a_pattern_is_led_to_its_end_quickly(pattern: str, text: str, tokenizer: Tokenizer) -> None:
    matcher = compiler_for(tokenizer).result().matcher(answer_rules({"type": "string", "pattern": pattern}))
    for token in tokenizer.encode(text):
        matcher.accept(token)
    assert 0 < matcher.tokens_to_end() <= 14
    assert matcher._probes == 0


def test_the_search_for_an_end_is_bounded(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that Python cannot read gives no example; a long string needs no probes to get long."""
    compiler = compiler_for(tokenizer).result()
    matcher = compiler.matcher(answer_rules({"type": "string", "minLength": 200}))
    assert matcher.tokens_to_end() >= 200
    monkeypatch.setattr("mlx_qwen3.grammar.matcher.string_endings", lambda rules: ())
    matcher = compiler.matcher(answer_rules({"type": "string", "pattern": "^.*foo.*bar$"}))
    ahead = matcher.copy()
    for _ in range(100):
        ahead.accept(lowest_token_id(ahead.closing_mask()))
    assert ahead._probes <= MAX_PROBED
