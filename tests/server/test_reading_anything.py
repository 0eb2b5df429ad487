"""Whatever JSON is sent, a reader gives a request or an error that names a field: never another exception."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_qwen3.server.anthropic.read import read_count_request
from mlx_qwen3.server.anthropic.read import read_request as read_messages
from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.responses.read import read_request as read_responses
from mlx_qwen3.server.responses.store import ResponseStore

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
ANTHROPIC = {
    "model": "demo",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "Be kind."}],
    "stream": True,
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "text", "text": "Yes."},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Paris"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "is_error": True,
                    "content": [{"type": "text", "text": "x"}],
                }
            ],
        },
    ],
    "tools": [
        {"name": "f", "description": "x", "input_schema": PARAMETERS, "input_examples": [{"city": "Rome"}]}
    ],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 100, "display": "omitted"},
    "temperature": 0.5,
    "top_k": 4,
    "stop_sequences": ["END"],
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "metadata": {},
}
RESPONSES = {
    "model": "demo",
    "instructions": "Be kind.",
    "stream": True,
    "store": False,
    "temperature": 1,
    "seed": 3,
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "H"}],
            "encrypted_content": "x",
            "content": [{"type": "reasoning_text", "text": "Hm."}],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Yes.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_text", "text": "x"}],
        },
        {"type": "item_reference", "id": "msg_1_0"},
    ],
    "tools": [
        {"type": "function", "name": "f", "parameters": PARAMETERS, "strict": True},
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g", "parameters": {}}]},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "top_logprobs": 2,
    "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}},
    "metadata": {"a": "b"},
    "max_output_tokens": 9,
    "previous_response_id": "resp_1",
}
WORDS = [
    "",
    "demo",
    "text",
    "tool_use",
    "tool_result",
    "function",
    "namespace",
    "auto",
    "user",
    "system",
    "message",
    "reasoning",
    "item_reference",
    "json_schema",
    "enabled",
    "disabled",
    "adaptive",
    "\ud800",
    "../x",
    "resp_1",
]
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "name", "id", "content", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each container in a JSON value, with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@st.composite
def bodies(draw: st.DrawFn, good: dict[str, Any]) -> dict[str, Any]:
    body = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 4))):
        found = places(body)
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        change = draw(st.sampled_from(["set", "remove", "add"]))
        if change == "set":
            container[key] = draw(ANYTHING)
        elif change == "remove":
            del container[key]
        elif isinstance(container, dict):
            container[draw(st.sampled_from([*good, *WORDS]))] = draw(ANYTHING)
        else:
            container.insert(key, draw(ANYTHING))
    return body


def read(reader: Callable[[dict[str, Any]], Any], body: dict[str, Any]) -> None:
    try:
        result = reader(body)
    except RequestError as error:
        result = error
    if isinstance(result, RequestError):
        assert 400 <= result.status < 500
        assert "\n" not in result.message
        assert 0 < len(result.message) <= 500
        return
    assert result.messages
    assert all(isinstance(message["content"], str) for message in result.messages)
    json.dumps([*result.messages, *result.tools, dict(result.sampling)])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ResponseStore:
    store = ResponseStore(tmp_path_factory.mktemp("responses"))
    output = {"id": "msg_1_0", "type": "message", "role": "assistant", "content": "Yes."}
    store.save({"id": "resp_1", "output": [output]}, [{"role": "user", "content": "hi"}])
    return store


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies(ANTHROPIC))
def test_messages(body: dict[str, Any]) -> None:
    read(read_messages, body)
    read(read_count_request, body)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(body=bodies(RESPONSES))
def test_responses(store: ResponseStore, body: dict[str, Any]) -> None:
    read(lambda body: read_responses(body, store), body)


def test_the_bodies_that_are_changed_are_good(store: ResponseStore, tmp_path: Path) -> None:
    good = ANTHROPIC | {"thinking": {"type": "disabled"}}
    assert len(read_messages(good).messages or ()) == 4
    assert len(read_responses(RESPONSES, store).messages or ()) == 7
