"""Turns that have to call a tool: whatever the model would say, a valid call comes of it."""

from __future__ import annotations

import random

import jsonschema
import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.errors import SchemaError
from mlx_qwen3.events import ToolCall
from mlx_qwen3.grammar import constrain
from mlx_qwen3.parsing import StreamParser
from mlx_qwen3.tokenizer import Tokenizer

pytest.importorskip("llguidance")

TOOLS = {
    "turn": {"type": "object", "properties": {"to": {"enum": ["left", "right"]}}, "required": ["to"]},
    "stop": {"type": "object", "properties": {}},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("demo")


def random_turn(tokenizer: Tokenizer, seed: int, one_call: bool, thinking: bool) -> list[ToolCall]:
    """The calls of a model that picks any token it may, after a prompt that lets it think or not."""
    draw = random.Random(seed)
    messages = [{"role": "user", "content": "hi"}]
    prompt = tokenizer.apply_chat_template(messages, enable_thinking=thinking)
    grammar = constrain(
        tokenizer, tokenizer.vocab_size, prompt, None, TOOLS, must_call=True, one_call=one_call
    )
    assert grammar is not None
    grammar.limit = 400
    parser = StreamParser(
        tokenizer.control_tokens.keys(), thinking=False, tool_format=tokenizer.template.tool_format,
        tool_schemas=TOOLS,
    )  # fmt: skip
    names = {id_: name for name, id_ in tokenizer.control_tokens.items()}
    events, text = [], tokenizer.stream()
    for number in range(400):
        mask = grammar.mask()
        allowed = np.arange(tokenizer.vocab_size) if mask is None else np.flatnonzero(np.array(mask))
        token = int(draw.choice(allowed.tolist()))
        if thinking and number == 0:
            token = tokenizer.think_start_id or 0
        elif thinking and number == 5:
            token = tokenizer.think_end_id or 0
        assert mask is None or bool(mx.array(mask)[token])
        if token in tokenizer.eos_token_ids:
            break
        grammar.accept(token)
        if token in names:
            events += parser.push_special_token(names[token])
        else:
            events += parser.push_text(text.push(token))
    else:
        pytest.fail("the turn did not end")
    return [event for event in [*events, *parser.finish()] if isinstance(event, ToolCall)]


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("one_call", [True, False])
def test_a_valid_call_comes_of_any_choice(tokenizer: Tokenizer, one_call: bool, thinking: bool) -> None:
    counts = []
    for seed in range(6):
        calls = random_turn(tokenizer, seed, one_call, thinking)
        for call in calls:
            assert call.error is None
            jsonschema.validate(call.arguments, TOOLS[call.name])
        counts.append(len(calls))
    assert min(counts) >= 1
    assert max(counts) == 1 if one_call else max(counts) > 1


def test_a_call_that_cannot_be_demanded_is_refused(tokenizer: Tokenizer) -> None:
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])
    with pytest.raises(SchemaError, match="no tool"):
        constrain(tokenizer, tokenizer.vocab_size, prompt, None, {}, must_call=True)
