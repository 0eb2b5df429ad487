"""OpenAI's API as pure functions: what a body becomes, and what events become. No HTTP, no model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from mlx_qwen3.engine.streams import collect
from mlx_qwen3.events import (
    AnswerDelta,
    Done,
    Event,
    Logprobs,
    PromptProgress,
    Stats,
    ThinkingDelta,
    ThinkingDone,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)
from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.openai.chat import ChatWriter, read_chat
from mlx_qwen3.server.openai.completions import CompletionWriter, read_completion
from mlx_qwen3.server.openai.errors import error_body
from mlx_qwen3.server.request import Chunk, ServerRequest, Started

HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
STARTED = Started("0a1b", "demo", 1_700_000_000, 21)


def chat(**fields: Any) -> ServerRequest:
    return read_chat({"messages": HELLO, **fields})


def stats(reason: Any = "stop", **values: Any) -> Stats:
    return Stats(21, 5, 3, 4, 0.1, 10.0, 10.0, 0, reason, generated_tokens=9, **values)


def call(index: int = 0, arguments: Any = '{"city": "Rome"}') -> list[Event]:
    """The events of a call; arguments None: one that cannot be used."""
    text = "{broken" if arguments is None else arguments
    parsed = None if arguments is None else json.loads(arguments or "{}")
    deltas = [ToolCallDelta(index, text[:5]), ToolCallDelta(index, text[5:])] if text else []
    end = ToolCall(index, "get_weather", parsed, text, None if parsed is not None else "not JSON")
    return [ToolCallStart(index, "get_weather"), *deltas, end]


def streamed(events: list[Event], request: ServerRequest | None = None) -> list[Chunk]:
    writer = ChatWriter(request or chat(stream=True), STARTED)
    chunks = writer.start()
    for event in events:
        chunks += writer.push(0, event)
    return [*chunks, *writer.end()]


def joined(chunks: list[Chunk]) -> dict[str, Any]:
    """What a client has in the end; each chunk is checked with the client's own model."""
    assert chunks[-1].data == "[DONE]"
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": {}, "reasons": []}
    for chunk in chunks[:-1]:
        assert isinstance(chunk.data, dict)
        ChatCompletionChunk.model_validate(chunk.data, strict=True)
        for choice in chunk.data["choices"]:
            delta = choice["delta"]
            assert None not in delta.values(), "a null in a delta breaks clients"
            message["content"] += delta.get("content", "")
            message["reasoning_content"] += delta.get("reasoning_content", "")
            assert delta.get("reasoning") == delta.get("reasoning_content")
            for part in delta.get("tool_calls", []):
                known = message["calls"].setdefault(part["index"], {"arguments": ""})
                known |= {key: part[key] for key in ("id", "type") if key in part}
                known["arguments"] += part["function"]["arguments"]
            message["reasons"] += [choice["finish_reason"]] if choice["finish_reason"] else []
    return message


def test_everything_that_a_request_can_say() -> None:
    request = chat(
        model="demo", temperature=0, top_p=0.5, top_k=-1, min_p=0.1, presence_penalty=1, frequency_penalty=-1,
        repetition_penalty=1.1, seed=3, stop="x", logit_bias={"5": -3}, logprobs=True, top_logprobs=2, n=2,
        max_completion_tokens=7, stream=True, tools=[WEATHER], tool_choice="required",
        parallel_tool_calls=False, enable_thinking=True, thinking_budget=9, user="me", store=False,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        stream_options={"include_usage": True}, metadata={"a": "b"}, prompt_cache_key="k",
    )  # fmt: skip
    assert request.sampling == {
        "temperature": 0, "top_p": 0.5, "top_k": 0, "min_p": 0.1, "presence_penalty": 1,
        "frequency_penalty": -1, "repetition_penalty": 1.1, "seed": 3, "stop": ("x",),
        "logit_bias": ((5, -3.0),), "logprobs": True, "top_logprobs": 2, "max_tokens": 7,
    }  # fmt: skip
    assert (request.n, request.stream, request.model) == (2, True, "demo")
    assert (request.tool_choice, request.tool_name, request.parallel_tool_calls) == ("required", None, False)
    assert (request.thinking, request.thinking_budget) == (True, 9)
    assert request.schema == {"type": "object"}
    assert request.options["include_usage"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"reasoning_effort": "none"}, (False, None)),
        ({"reasoning_effort": "low"}, (True, 1024)),
        ({"reasoning": {"effort": "high"}}, (True, None)),
        ({"reasoning": {"max_tokens": 50}}, (None, 50)),
        ({"reasoning": {"enabled": False}}, (False, None)),
        ({"chat_template_kwargs": {"enable_thinking": False}}, (False, None)),
        ({"enable_thinking": True, "thinking_budget": 0}, (True, 0)),
        ({"thinking": {"type": "enabled", "budget_tokens": 8}}, (True, 8)),
        ({"thinking": {"type": "disabled"}}, (False, None)),
        ({}, (None, None)),
    ],
)
def test_thinking_in_every_dialect(fields: dict[str, Any], expected: tuple[Any, Any]) -> None:
    request = chat(**fields)
    assert (request.thinking, request.thinking_budget) == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"unheard_of": 1}, "unheard_of"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages[0].mood"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]},
         "messages[0].tool_calls[0].function"),
        ({"temperature": 99}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"audio": {}}, "audio"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"store": True}, "store"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"verbosity": "low"}, "verbosity"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tools": [WEATHER], "tool_choice": "must"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"tone": 1}}, "chat_template_kwargs.tone"),
        ({"stream_options": {"x": 1}}, "stream_options.x"),
        ({"continue_final_message": True}, "continue_final_message"),
    ],
)  # fmt: skip
def test_what_cannot_be_obeyed_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        chat(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    body = error_body(caught.value)["error"]
    assert body["param"] == param
    assert body["type"] == "invalid_request_error"


def test_messages_of_every_kind() -> None:
    request = read_chat(
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": None, "reasoning": "hm", "refusal": None, "audio": None,
                 "annotations": [], "tool_calls": [
                     {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
                {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "4"}]},
                {"role": "system", "content": "late"},
                {"role": "assistant", "content": "So", "prefix": True},
            ]
        }
    )  # fmt: skip
    messages = list(request.messages or ())
    assert [message["role"] for message in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "system",
        "assistant",
    ]
    assert messages[1]["content"] == "ab"
    assert messages[2]["reasoning_content"] == "hm"
    assert messages[2]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert request.continue_final_message


def test_a_stream_of_thinking_text_and_calls() -> None:
    events = [
        PromptProgress(21, 21, 0), ThinkingDelta("I "), ThinkingDelta("see."), ThinkingDone(3, 0.1),
        AnswerDelta("Let me look."), *call(0), *call(1, ""), AnswerDelta("Done."), Done(stats("tool_calls")),
    ]  # fmt: skip
    message = joined(streamed(events))
    assert message["reasoning_content"] == "I see."
    assert message["content"] == "Let me look.\n\nDone."
    assert [json.loads(known["arguments"]) for known in message["calls"].values()] == [{"city": "Rome"}, {}]
    assert [known["id"] for known in message["calls"].values()] == ["call_0a1bc0i0", "call_0a1bc0i1"]
    assert message["reasons"] == ["tool_calls"]


def test_the_whole_answer_says_what_the_stream_says() -> None:
    events = [
        ThinkingDelta("hm"),
        ThinkingDone(1, 0.1),
        AnswerDelta("ok"),
        *call(0),
        Done(stats("tool_calls")),
    ]
    answer = ChatWriter(chat(), STARTED).whole([collect(iter(events))])
    ChatCompletion.model_validate(answer, strict=True)
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"], message["reasoning"]) == ("ok", "hm", "hm")
    assert message["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}


def test_no_call_no_tool_calls() -> None:
    """A call that cannot be used is text, and the reason is not tool_calls (opencode#5139, Cline#9857)."""
    events = [*call(0, None), Done(stats("tool_calls"))]
    writer = ChatWriter(chat(stream=True), replace(STARTED, streams_calls=False))
    message = joined(
        [*writer.start(), *(c for event in events for c in writer.push(0, event)), *writer.end()]
    )
    assert (message["calls"], message["reasons"], message["content"]) == ({}, ["stop"], "{broken")
    answer = ChatWriter(chat(), STARTED).whole([collect(iter(events))])
    ChatCompletion.model_validate(answer, strict=True)
    assert "tool_calls" not in answer["choices"][0]["message"]
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_there_is_always_a_content_key() -> None:
    empty = ChatWriter(chat(), STARTED).whole([collect(iter([Done(stats())]))])
    assert empty["choices"][0]["message"]["content"] == ""
    only_call = ChatWriter(chat(), STARTED).whole([collect(iter([*call(), Done(stats("tool_calls"))]))])
    assert only_call["choices"][0]["message"]["content"] is None
    first = ChatWriter(chat(stream=True), STARTED).start()[0].data
    assert isinstance(first, dict)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_keep_alives_are_data_that_changes_nothing() -> None:
    writer = ChatWriter(chat(stream=True), STARTED)
    [chunk] = writer.keep_alive()
    assert isinstance(chunk.data, dict)
    assert ChatCompletionChunk.model_validate(chunk.data).choices[0].delta.content == ""


def test_usage_comes_last_if_asked_for() -> None:
    request = chat(stream=True, stream_options={"include_usage": True})
    *chunks, usage, done = streamed([AnswerDelta("x"), Done(stats())], request)
    assert done.data == "[DONE]"
    assert isinstance(usage.data, dict)
    assert usage.data["choices"] == []
    assert usage.data["usage"]["total_tokens"] == 30
    assert all(chunk.data["usage"] is None for chunk in chunks)  # type: ignore[index]
    plain = streamed([AnswerDelta("x"), Done(stats())])
    assert all("usage" not in chunk.data for chunk in plain)


def test_logprobs_are_of_the_answer() -> None:
    def token(text: str) -> Logprobs:
        entry = TokenLogprob(1, text, -0.5)
        return Logprobs(entry, (entry, TokenLogprob(2, "é", float("-inf"))))

    events: list[Event] = [
        token("hm"), ThinkingDelta("hm"), token("</think>"), ThinkingDone(1, 0.1), token("o"), token("k"),
        AnswerDelta("ok"), token("<|im_end|>"), Done(stats()),
    ]  # fmt: skip
    chunks = streamed(events, chat(stream=True, logprobs=True, top_logprobs=2))
    entries = [entry for chunk in chunks[:-1] for choice in chunk.data["choices"]  # type: ignore[index]
               for entry in (choice["logprobs"] or {}).get("content", [])]  # fmt: skip
    assert [entry["token"] for entry in entries] == ["o", "k"]
    assert entries[0]["top_logprobs"][1] == {"token": "é", "logprob": -9999.0, "bytes": [195, 169]}
    answer = ChatWriter(chat(logprobs=True), STARTED).whole([collect(iter(events))])
    ChatCompletion.model_validate(answer, strict=True)
    assert [entry["token"] for entry in answer["choices"][0]["logprobs"]["content"]] == ["o", "k"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("stop", "stop"), ("length", "length"), ("loop", "length"), ("cancelled", "length")],
)
def test_finish_reasons(reason: Any, expected: str) -> None:
    assert joined(streamed([AnswerDelta("x"), Done(stats(reason))]))["reasons"] == [expected]


def test_json_that_was_led_to_its_end_has_stopped() -> None:
    """The client raises for `length`, and the answer is whole."""
    for answer, expected in (('{"a": 1}', "stop"), ('{"a": 1', "length")):
        request = chat(stream=True, response_format={"type": "json_object"})
        events = [AnswerDelta(answer), Done(stats("length"))]
        assert joined(streamed(events, request))["reasons"] == [expected]
        whole = ChatWriter(request, STARTED).whole([collect(iter(events))])
        assert whole["choices"][0]["finish_reason"] == expected


def test_an_error_in_a_stream_ends_it() -> None:
    chunks = ChatWriter(chat(stream=True), STARTED).fail(RequestError(503, "gone", code="engine_unavailable"))
    assert chunks[0].data["error"]["message"] == "gone"  # type: ignore[index]
    assert chunks[-1].data == "[DONE]"


def test_completions() -> None:
    request = read_completion({"prompt": ["a", "b"], "n": 2, "echo": True, "max_tokens": 3, "seed": 1})
    assert (request.choices, request.sampling["max_tokens"]) == (4, 3)
    writer = CompletionWriter(request, STARTED)
    replies = [collect(iter([AnswerDelta(str(n)), Done(stats())])) for n in range(4)]
    answer = writer.whole(replies)
    Completion.model_validate(answer, strict=True)
    assert [choice["text"] for choice in answer["choices"]] == ["a0", "a1", "b2", "b3"]
    assert read_completion({"prompt": [1, 2]}).prompts == [[1, 2]]
    assert read_completion({"prompt": [[1], "x"]}).prompts == [[1], "x"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
        ({"prompt": [1], "echo": True}, "echo"),
        ({"prompt": "x", "logprobs": 6}, "logprobs"),
        ({"prompt": "x", "messages": []}, "messages"),
    ],
)
def test_what_a_completion_cannot_obey_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_completion(fields)
    assert caught.value.param == param


def test_logprobs_of_completions() -> None:
    request = read_completion({"prompt": "x", "logprobs": 1, "stream": True})
    writer = CompletionWriter(request, STARTED)
    entry = TokenLogprob(1, "ab", -0.5)
    chunks = writer.push(0, Logprobs(entry, (entry,))) + writer.push(0, AnswerDelta("ab"))
    chunks += writer.push(0, Logprobs(entry, (entry,))) + writer.push(0, Done(stats("length")))
    logprobs = [chunk.data["choices"][0]["logprobs"] for chunk in chunks]  # type: ignore[index]
    assert [each["text_offset"] for each in logprobs] == [[0], [2]]
    assert logprobs[0]["top_logprobs"] == [{"ab": -0.5}]
    # The client's model knows no finish_reason of null, which OpenAI sends until the last chunk.
    Completion.model_validate(chunks[-1].data, strict=True)
