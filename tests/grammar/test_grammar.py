"""Grammars: the tokens that may come next are those that the schema allows."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parse_text import parse_text
from qwen_tokenizer_files import qwen_tokenizer_folder
from random_schemas import POINT, random_schema

import mlx_qwen3
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.errors import SchemaError
from mlx_qwen3.events import ToolCall
from mlx_qwen3.grammar import AnswerSchema, TurnGrammar, constrain
from mlx_qwen3.grammar.closed_schema import close_schema
from mlx_qwen3.grammar.matcher import compiler_for
from mlx_qwen3.grammar.rules import call_rules, one_call_rules
from mlx_qwen3.tokenizer import Tokenizer
from mlx_qwen3.tokenizer.chat_template import ToolFormat

DEMO = Path(mlx_qwen3.__file__).parent / "demo"


@pytest.fixture(scope="module")
def demo_tokenizer() -> Tokenizer:
    return load_tokenizer(DEMO)


def grammar_for(
    tokenizer: Tokenizer, schema: Any = None, thinking: bool = False, tools: Mapping[str, Any] | None = None
) -> TurnGrammar:
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], enable_thinking=thinking)
    answer = None if schema is None else AnswerSchema.of(schema)
    grammar = constrain(tokenizer, tokenizer.vocab_size + 7, prompt, answer, tools or {})
    assert grammar is not None
    return grammar


def allowed(grammar: TurnGrammar) -> list[int] | None:
    mask = grammar.mask()
    return None if mask is None else np.flatnonzero(np.array(mask)).tolist()


def walk(grammar: TurnGrammar, tokenizer: Tokenizer, rng: np.random.Generator, most: int) -> list[int]:
    """Tokens drawn at random from those that may come next, up to the end of the turn."""
    tokens: list[int] = []
    for _ in range(most):
        tokens.append(int(rng.choice(allowed(grammar))))
        grammar.accept(tokens[-1])
        if tokens[-1] in tokenizer.eos_token_ids:
            return tokens[:-1]
    raise AssertionError(f"no end after {tokenizer.decode(tokens)!r}")


def accept_text(grammar: TurnGrammar, tokenizer: Tokenizer, text: str) -> None:
    """Accept `text`, each token of which must be allowed."""
    for token in tokenizer.encode(text, control_tokens=True):
        may = allowed(grammar)
        assert may is None or token in may, tokenizer.decode([token])
        grammar.accept(token)


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_answers_drawn_at_random_from_the_masks_are_valid(first: int, demo_tokenizer: Tokenizer) -> None:
    """With a limit of twice the shortest answer and 100 tokens, so that every answer must end."""
    for seed in range(first, first + 20):
        schema = random_schema(seed)
        grammar = grammar_for(demo_tokenizer, schema)
        grammar.limit = 100 + 2 * grammar._current_matcher().tokens_to_end()
        tokens = walk(grammar, demo_tokenizer, np.random.default_rng(seed), grammar.limit)
        assert not set(tokens) & set(demo_tokenizer.control_tokens.values())
        jsonschema.validate(json.loads(demo_tokenizer.decode(tokens)), schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 10, "minimum": 1000},
        {"type": "string", "pattern": "^A.*Z$"},
        {"type": "string", "format": "email"},
        {"type": "object", "additionalProperties": {"type": "string", "pattern": "a$"}, "minProperties": 1},
    ],
    ids=str,
)
def test_a_value_that_may_not_end_anywhere_is_steered_to_its_end(
    schema: Any, demo_tokenizer: Tokenizer
) -> None:
    for seed in range(5):
        grammar = grammar_for(demo_tokenizer, schema)
        grammar.limit = 60
        text = demo_tokenizer.decode(walk(grammar, demo_tokenizer, np.random.default_rng(seed), 60))
        jsonschema.validate(json.loads(text), schema)


def test_answers_with_the_real_vocabulary_are_valid() -> None:
    tokenizer = load_tokenizer(qwen_tokenizer_folder())
    for seed in range(2):
        schema = random_schema(seed)
        grammar = grammar_for(tokenizer, schema)
        grammar.limit = 60 + 2 * grammar._current_matcher().tokens_to_end()
        text = tokenizer.decode(walk(grammar, tokenizer, np.random.default_rng(seed), grammar.limit))
        jsonschema.validate(json.loads(text), schema)


def test_every_valid_spelling_is_allowed(demo_tokenizer: Tokenizer) -> None:
    for text in (
        '{"x":1,"label":""}',
        '{"x": -12, "label": "<think> é"}',
        '{\n    "x": 0,\n    "label": "a"\n}',
    ):
        grammar = grammar_for(demo_tokenizer, POINT)
        for token in [*demo_tokenizer.encode(text), demo_tokenizer.eos_token_ids[0]]:
            assert token in (allowed(grammar) or []), text
            grammar.accept(token)
        assert grammar.mask() is None


@pytest.mark.parametrize("text", ['{"x": 1.', '{"y', '{"l', "[", "x", '{"x": 1}', '{"x": 1, "label": "a",'])
def test_invalid_json_is_not_allowed(text: str, demo_tokenizer: Tokenizer) -> None:
    """The last character is one too many. Byte tokens leave no other way to spell it."""
    grammar = grammar_for(demo_tokenizer, POINT)
    for char in text[:-1]:
        grammar.accept(demo_tokenizer.encode(char)[0])
    assert demo_tokenizer.encode(text[-1])[0] not in (allowed(grammar) or [])


def test_a_turn_ends_when_the_answer_is_complete_and_not_before(demo_tokenizer: Tokenizer) -> None:
    grammar = grammar_for(demo_tokenizer, POINT)
    end = demo_tokenizer.eos_token_ids[0]
    for token in demo_tokenizer.encode('{"x": 1, "label": "a"}'):
        assert end not in (allowed(grammar) or [])
        grammar.accept(token)
    assert allowed(grammar) == [end]


def test_thinking_is_free_but_for_the_end_of_the_turn(demo_tokenizer: Tokenizer) -> None:
    grammar, control = grammar_for(demo_tokenizer, POINT, thinking=True), demo_tokenizer.control_tokens
    assert control["<think>"] in (allowed(grammar) or [])
    grammar.accept(control["<think>"])
    may = set(allowed(grammar) or [])
    assert {control["<|im_end|>"], control["<|endoftext|>"], control["<|im_start|>"]} == set(
        range(demo_tokenizer.vocab_size)
    ) - may
    accept_text(
        grammar, demo_tokenizer, '\n<tool_call> {"x" is 3\n</think>\n\n{"x": 3, "label": "thought"}<|im_end|>'
    )


def test_a_forced_end_of_thinking_leads_to_the_answer(demo_tokenizer: Tokenizer) -> None:
    grammar = grammar_for(demo_tokenizer, POINT, thinking=True)
    grammar.accept(demo_tokenizer.control_tokens["<think>"])
    grammar.force(demo_tokenizer.encode("Enough.\n</think>\n\n", control_tokens=True))
    accept_text(grammar, demo_tokenizer, '{"x": 3, "label": "thought"}<|im_end|>')


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_rollback_leaves_no_trace(data: st.DataObject, demo_tokenizer: Tokenizer) -> None:
    """Speculative decoding accepts tokens and rolls some back: the mask is that of the tokens left."""
    texts = {
        True: '<think>\nso\n</think>\n\n{"x": 3, "label": "a\\"b"}<|im_end|>',
        False: "<think>\nso\n</think>\n\nSee:\n<tool_call>\n"
        '{"name": "f", "arguments": {"x": 3, "label": "a"}}\n</tool_call>\n<tool_call>\n'
        '{"name": "f", "arguments": {"x": 4, "label": ""}}\n</tool_call><|im_end|>',
    }
    has_schema = data.draw(st.booleans())
    ids = demo_tokenizer.encode(texts[has_schema], control_tokens=True)
    options: dict[str, Any] = {"schema": POINT} if has_schema else {"tools": {"f": POINT}}
    grammar, place = grammar_for(demo_tokenizer, thinking=True, **options), 0
    for _ in range(data.draw(st.integers(1, 8))):
        ahead = data.draw(st.integers(0, len(ids) - place))
        for token in ids[place : place + ahead]:
            grammar.mask()
            grammar.accept(token)
        back = data.draw(st.integers(0, place + ahead))
        grammar.rollback(back)
        place += ahead - back
    straight = grammar_for(demo_tokenizer, thinking=True, **options)
    for token in ids[:place]:
        straight.accept(token)
    assert allowed(grammar) == allowed(straight)


# Calls


def test_a_call_names_a_tool_that_was_offered(demo_tokenizer: Tokenizer) -> None:
    grammar = grammar_for(demo_tokenizer, tools={"move": POINT, "stop": {"type": "object", "properties": {}}})
    accept_text(grammar, demo_tokenizer, "I will <tool_call> it, as in\n```\n<tool_call>\nsomething\n```\n")
    assert grammar.mask() is None
    accept_text(
        grammar, demo_tokenizer, '<tool_call>\n{"name": "move", "arguments": {"x": 1, "label": "</tool_c"}}'
    )
    assert grammar.mask() is not None
    accept_text(grammar, demo_tokenizer, '\n</tool_call>\n<tool_call>\n{"name": "stop", "arguments": {')
    assert demo_tokenizer.encode('"')[0] not in (allowed(grammar) or [])
    accept_text(grammar, demo_tokenizer, "}}\n</tool_call>")
    assert grammar.mask() is None


@pytest.mark.parametrize("tool_format", list(ToolFormat))
def test_calls_drawn_at_random_are_read_without_repair(
    tool_format: ToolFormat, demo_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = {f"tool_{seed}": random_schema(seed) for seed in range(12)}
    tools["odd name"] = {"type": "object", "properties": {"a": {"enum": ["yes", 1]}, "b": {"type": "string"}}}
    tools["broken"] = {"type": "object", "properties": ["not", "a", "schema"]}
    monkeypatch.setattr(demo_tokenizer.template, "tool_format", tool_format)
    schemas = {name: schema for name, schema in tools.items() if schema.get("type") == "object"}
    for seed in range(12):
        grammar = grammar_for(demo_tokenizer, tools=schemas)
        opening = demo_tokenizer.control_tokens["<tool_call>"]
        grammar.accept(opening)
        tokens, rng = [opening], np.random.default_rng(seed)
        while (may := allowed(grammar)) is not None and len(tokens) < 600:
            bits = grammar._current_matcher().closing_mask() if len(tokens) > 100 else None
            tokens.append(
                int(
                    rng.choice(
                        may if bits is None else np.flatnonzero(np.unpackbits(bits, bitorder="little"))
                    )
                )
            )
            grammar.accept(tokens[-1])
        if tool_format is ToolFormat.XML and len(tokens) >= 600:
            continue  # free text has no end to steer to
        [call] = [
            event
            for event in parse_text(
                demo_tokenizer.decode(tokens), tool_format=tool_format, tool_schemas=schemas
            )
            if isinstance(event, ToolCall)
        ]
        assert call.error is None, call
        if tool_format is ToolFormat.JSON and call.name != "broken":
            jsonschema.validate(call.arguments, schemas[call.name])


def test_a_schema_that_cannot_be_used_leaves_the_other_tools_constrained(demo_tokenizer: Tokenizer) -> None:
    tools = {
        "odd": {"type": "object", "not": {}},
        "list": {"type": "array"},
        "deep": _deep(5000),
        "move": POINT,
    }
    grammar = grammar_for(demo_tokenizer, tools=tools)
    accept_text(
        grammar, demo_tokenizer, '<tool_call>\n{"name": "odd", "arguments": {"any": [1]}}\n</tool_call>'
    )
    accept_text(
        grammar, demo_tokenizer, '<tool_call>\n{"name": "list", "arguments": {"any": [1]}}\n</tool_call>'
    )
    grammar.accept(demo_tokenizer.control_tokens["<tool_call>"])
    accept_text(grammar, demo_tokenizer, '\n{"name": "move", "arguments": {"x": ')
    assert demo_tokenizer.encode("a")[0] not in (allowed(grammar) or [])


def _deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def test_without_the_extra_calls_are_free_and_schemas_refused(
    demo_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_qwen3.grammar.matcher.find_spec", lambda name: None)
    assert constrain(demo_tokenizer, 10, [], None, {"move": POINT}) is None
    with pytest.raises(SchemaError, match="-m pip install 'llguidance"):
        AnswerSchema.of(POINT)


# Schemas


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "strin"}, "Invalid type: strin"),
        ({"$ref": "#/nowhere"}, "does not exist"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "Unsatisfiable"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around"),
        ({"not": {}}, "Unimplemented"),
        ({"type": object()}, "not a JSON schema"),
        (_deep(5000), "."),
        (print, "no JSON schema can be made of"),
    ],
    ids=range(8),
)
def test_a_schema_that_cannot_be_used_is_one_clear_line(schema: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message) as error:
        AnswerSchema.of(schema)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"type": "strin"}'])
def test_a_file_that_cannot_be_used_is_named(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SchemaError, match=r"schema\.json"):
        AnswerSchema.read(file)


def test_objects_are_closed_unless_they_are_composed() -> None:
    inner = {"properties": {"properties": {"type": "object"}}}
    schema = {"properties": {"a": {"type": "array", "items": inner}}, "$defs": {"b": inner}}
    shut = inner | {"additionalProperties": False}
    assert close_schema(schema) == {
        "properties": {"a": {"type": "array", "items": shut}},
        "$defs": {"b": shut},
        "additionalProperties": False,
    }
    for composed in ({"allOf": [inner, {"properties": {"b": {}}}]}, {"$ref": "#/$defs/x", **inner}):
        assert close_schema({"properties": {"c": composed}}) == {"properties": {"c": composed}}
    for open_schema in ({**inner, "additionalProperties": True}, {**inner, "required": ["elsewhere"]}):
        assert close_schema(open_schema) == open_schema


def test_rules_of_calls_do_not_depend_on_the_template(demo_tokenizer: Tokenizer) -> None:
    """Calls as Qwen3-Coder writes them: JSON for types that are not strings, other values as they are."""
    schema = {
        "type": "object",
        "properties": {"path": {"type": "string"}, "deep": {"type": "boolean"}, "n": {"type": "integer"}},
        "required": ["path"],
    }
    rules = one_call_rules(call_rules({"list": schema}, ToolFormat.XML, (1, 2)))
    matcher = compiler_for(demo_tokenizer).result().matcher(rules)
    text = (
        '\n<function=list>\n<parameter=path>\n/a "b"\n</parameter>\n'
        "<parameter=deep>\ntrue\n</parameter>\n</function>\n"
    )
    for token in demo_tokenizer.encode(text):
        assert matcher.mask()[token // 8] >> token % 8 & 1, demo_tokenizer.decode([token])
        matcher.accept(token)


def test_a_compiler_is_freed_with_its_tokenizer() -> None:
    tokenizer = load_tokenizer(DEMO)
    compiler_for(tokenizer).result().matcher("start: /a+/").mask()
    gone = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert gone() is None


def test_the_compiler_of_a_tokenizer_is_made_once(demo_tokenizer: Tokenizer) -> None:
    before = threading.active_count()
    compilers = {compiler_for(demo_tokenizer) for _ in range(3)}
    assert len(compilers) == 1
    assert threading.active_count() <= before + 1
