"""Anthropic's API without HTTP: bodies to requests, events to what Anthropic's client makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import api_events as made
import pytest

from mlx_qwen3.errors import PromptTooLongError
from mlx_qwen3.events import AnswerDelta, Done, Event, ThinkingDelta
from mlx_qwen3.server.anthropic.read import read_count_request, read_request
from mlx_qwen3.server.anthropic.write import MessageWriter, error_body
from mlx_qwen3.server.errors import RequestError, as_request_error
from mlx_qwen3.server.request import ServerRequest

TOOL = {
    "name": "get_weather",
    "description": "The weather now.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
HELLO = {"role": "user", "content": "hi"}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "demo", "max_tokens": 100, "messages": [HELLO]} | fields


def messages_of(*messages: Any, **fields: Any) -> list[Any]:
    return list(read_request(body(messages=list(messages), **fields)).messages or ())


def writer(**fields: Any) -> MessageWriter:
    return MessageWriter(read_request(body(tools=[TOOL], **fields)), made.STARTED)


# Requests


def test_a_plain_request() -> None:
    request = read_request(body(temperature=0.5, top_k=5, stop_sequences=["END"], stream=True))
    assert request.messages == [HELLO]
    assert request.sampling == {"max_tokens": 100, "temperature": 0.5, "top_k": 5, "stop": ("END",)}
    assert request.stream
    assert request.thinking is False, "without `thinking` there is none"


def test_the_system_prompt_may_be_text_or_blocks() -> None:
    blocks = [
        {"type": "text", "text": "Be kind."},
        {"type": "text", "text": "Be brief.", "cache_control": {}},
    ]
    assert messages_of(HELLO, system="Be kind.")[0] == {"role": "system", "content": "Be kind."}
    assert messages_of(HELLO, system=blocks)[0] == {"role": "system", "content": "Be kind.\nBe brief."}


@pytest.mark.parametrize("rest", ["", "\nYou are Claude Code."])
def test_the_billing_header_that_changes_with_each_request_is_no_part_of_the_prompt(rest: str) -> None:
    def prompt(token: str) -> list[Any]:
        header = f"x-anthropic-billing-header: cc_version=2.1.0; cch={token};{rest}"
        return messages_of(
            HELLO, system=[{"type": "text", "text": header}, {"type": "text", "text": "Be kind."}]
        )

    assert prompt("1a2b3") == prompt("9f8e7")
    assert "billing" not in json.dumps(prompt("1a2b3"))
    assert "Be kind." in prompt("1a2b3")[0]["content"]


def test_what_a_user_says_about_the_header_stays() -> None:
    text = "x-anthropic-billing-header: cch=1;"
    assert messages_of({"role": "user", "content": text})[0]["content"] == text


def test_a_tool_loop_becomes_calls_and_results() -> None:
    said = [
        {"type": "thinking", "thinking": "I need the weather.", "signature": "c2ln"},
        {"type": "text", "text": "One moment."},
        {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "22 C"}]},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such city", "is_error": True},
        {"type": "tool_result", "tool_use_id": "toolu_3"},
        {"type": "text", "text": "Go on."},
    ]
    assert messages_of(
        HELLO, {"role": "assistant", "content": said}, {"role": "user", "content": results}
    ) == [
        HELLO,
        {
            "role": "assistant",
            "content": "One moment.",
            "reasoning_content": "I need the weather.",
            "tool_calls": [
                {
                    "id": "toolu_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": {"city": "Paris"}},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "22 C"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: no such city"},
        {"role": "tool", "tool_call_id": "toolu_3", "content": ""},
        {"role": "user", "content": "Go on."},
    ]


def test_a_system_message_in_the_middle_stays_there() -> None:
    late = {"role": "system", "content": "Agents: none."}
    assert messages_of(HELLO, late) == [HELLO, late]


def test_an_image_in_a_tools_result_is_named_and_one_of_the_user_is_refused() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [image]}
    assert "cannot see" in messages_of({"role": "user", "content": [result]})[0]["content"]
    with pytest.raises(RequestError, match=r"messages\[0\]\.content\[0\]\.type 'image'"):
        messages_of({"role": "user", "content": [image]})


def test_the_beginning_of_an_answer_is_continued() -> None:
    begun = [HELLO, {"role": "assistant", "content": "The answer is ("}]
    assert read_request(body(messages=begun)).continue_final_message
    with pytest.raises(RequestError, match="thinking"):
        read_request(body(messages=begun, thinking={"type": "adaptive"}))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (False, None)),
        ({"thinking": {"type": "disabled"}}, (False, None)),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, (True, 2000)),
        ({"thinking": {"type": "adaptive"}}, (True, None)),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, (True, None)),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, (True, 1024)),
        ({"output_config": {"effort": "high"}}, (False, None)),
    ],
)
def test_thinking(fields: dict[str, Any], expected: tuple[bool, int | None]) -> None:
    request = read_request(body(**fields))
    assert (request.thinking, request.thinking_budget) == expected


def test_tools_and_their_choice() -> None:
    def choice(**fields: Any) -> tuple[Any, ...]:
        request = read_request(body(tools=[TOOL], tool_choice=fields))
        return request.tool_choice, request.tool_name, request.parallel_tool_calls

    function = read_request(body(tools=[TOOL])).tools[0]["function"]
    assert function["parameters"] == TOOL["input_schema"]
    assert choice(type="auto") == ("auto", None, True)
    assert choice(type="any", disable_parallel_tool_use=True) == ("required", None, False)
    assert choice(type="tool", name="get_weather") == ("required", "get_weather", True)
    assert choice(type="none") == ("none", None, True)


def test_examples_of_a_tool_are_told_to_the_model() -> None:
    tool = TOOL | {"input_examples": [{"city": "Oslo"}]}
    assert '{"city": "Oslo"}' in read_request(body(tools=[tool])).tools[0]["function"]["description"]


@pytest.mark.parametrize("name", ["output_format", "output_config"])
def test_a_schema_for_the_answer(name: str) -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    given = form if name == "output_format" else {"format": form}
    assert read_request(body(**{name: given})).schema == {"type": "object"}


def test_what_claude_code_sends_is_taken() -> None:
    request = read_request(
        body(
            system=[
                {"type": "text", "text": "x-anthropic-billing-header: cch=1;"},
                {"type": "text", "text": "Be kind."},
            ],
            metadata={"user_id": "u"},
            thinking={"type": "adaptive"},
            output_config={"effort": "high"},
            context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            stream=True,
            tools=[TOOL | {"eager_input_streaming": True}],
        )
    )
    chunks = list(made.stream_of(MessageWriter(request, made.STARTED), made.TURN))
    assert chunks[-2].data["context_management"] == {"applied_edits": []}, "and is told that none was applied"


def test_counting_needs_no_max_tokens() -> None:
    assert read_count_request({"model": "demo", "messages": [HELLO], "tools": [TOOL]}).tools


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [7]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "hi", "mood": "good"}]}, "messages[0].mood"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"url": "http://x"}]}, "mcp_servers"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        (
            {"context_management": {"edits": [{"type": "compact_20260112"}]}},
            "context_management.edits[0].type",
        ),
        ({"temperature": "hot"}, "temperature"),
        ({"frobnicate": 1}, "frobnicate"),
        ({"thinking": {"type": "adaptive", "wildly": True}}, "thinking.wildly"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_request(body(**fields))
    assert caught.value.status == 400
    assert named in caught.value.message


# Answers, read by Anthropic's own client


@pytest.fixture
def answered() -> Callable[[bytes, str], Any]:
    """A client of Anthropic's whose next answer is given."""
    anthropic, httpx = pytest.importorskip("anthropic"), pytest.importorskip("httpx2")

    def client(content: bytes, kind: str, status: int = 200) -> Any:
        def handle(_: Any) -> Any:
            return httpx.Response(status, content=content, headers={"content-type": kind})

        http = anthropic.DefaultHttpxClient(transport=httpx.MockTransport(handle))
        return anthropic.Anthropic(api_key="x", base_url="http://server", http_client=http, max_retries=0)

    return client


def streamed(answered: Any, events: Iterable[Event], **fields: Any) -> Any:
    client = answered(made.bytes_of(writer(**fields), events), "text/event-stream")
    with client.messages.stream(max_tokens=9, model="demo", messages=[HELLO]) as stream:
        return stream.get_final_message()


def whole(answered: Any, events: Iterable[Event], **fields: Any) -> Any:
    content = json.dumps(writer(**fields).whole([made.reply_of(events)])).encode()
    return answered(content, "application/json").messages.create(max_tokens=9, model="demo", messages=[HELLO])


@pytest.mark.parametrize("read", [streamed, whole])
def test_a_turn_with_thinking(answered: Any, read: Any) -> None:
    message = read(answered, made.TURN)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking == "Let me see."
    assert message.content[0].signature
    assert message.content[1].text == "It is warm."
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (10, 20)
    assert message.usage.output_tokens == 12
    assert message.role == "assistant"


@pytest.mark.parametrize("read", [streamed, whole])
def test_calls(answered: Any, read: Any) -> None:
    message = read(answered, made.CALLING)
    assert message.stop_reason == "tool_use"
    calls = [block for block in message.content if block.type == "tool_use"]
    assert [(call.name, call.input) for call in calls] == [
        ("get_weather", {"city": "Paris"}),
        ("get_weather", {"city": "Rome"}),
    ]
    assert [call.id for call in calls] == ["toolu_0123abcdc0i0", "toolu_0123abcdc0i1"]


@pytest.mark.parametrize("read", [streamed, whole])
def test_a_call_that_cannot_be_used_is_text_and_no_reason_to_stop(answered: Any, read: Any) -> None:
    broken = made.call_events(0, "launch", ["{}"], None, error="There is no tool of that name.")
    message = read(answered, [*broken, Done(made.stats())])
    assert [block.type for block in message.content] == ["text"]
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (made.stats("length", generated_tokens=100), ("max_tokens", None)),
        (made.stats("length", generated_tokens=7), ("model_context_window_exceeded", None)),
        (made.stats("loop"), ("max_tokens", None)),
        (made.stats("stop", stop_string="END"), ("stop_sequence", "END")),
    ],
)
def test_reasons_to_stop(answered: Any, figures: Any, expected: tuple[str, str | None]) -> None:
    message = streamed(answered, [AnswerDelta("It"), Done(figures)])
    assert (message.stop_reason, message.stop_sequence) == expected


def test_thinking_that_the_client_does_not_want_to_see(answered: Any) -> None:
    for read in (streamed, whole):
        message = read(answered, made.TURN, thinking={"type": "adaptive", "display": "omitted"})
        assert message.content[0].thinking == ""
        assert message.content[0].signature


def test_the_order_of_the_stream() -> None:
    kinds = [chunk.data["type"] for chunk in made.stream_of(writer(), made.CALLING)]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    thinking = [block[0], block[1], block[1], block[2]]  # the text, then the signature
    call = [block[0], block[1], block[1], block[1], block[2]]
    expected = [*thinking, *block, *call, *block]
    assert kinds == ["message_start", "ping", *expected, "message_delta", "message_stop"]


def test_each_event_is_one_of_anthropics_types() -> None:
    types = pytest.importorskip("anthropic.types")
    pydantic = pytest.importorskip("pydantic")
    event_type = pydantic.TypeAdapter(types.RawMessageStreamEvent)
    for chunk in made.stream_of(writer(), made.CALLING):
        assert chunk.event == chunk.data["type"]
        if chunk.event != "ping":
            event_type.validate_python(chunk.data, strict=True)


def test_arguments_arrive_while_they_are_written() -> None:
    pieces = [
        chunk.data["delta"]["partial_json"]
        for chunk in made.stream_of(writer(), [*made.WEATHER, Done(made.stats())])
        if chunk.data.get("delta", {}).get("type") == "input_json_delta"
    ]
    assert pieces == ['{"ci', 'ty": "Par', 'is"}']


def test_a_call_without_arguments_has_an_empty_object(answered: Any) -> None:
    events = [*made.call_events(0, "get_weather", [], {}), Done(made.stats("tool_calls"))]
    assert streamed(answered, events).content[0].input == {}
    deltas = [
        chunk.data["delta"]
        for chunk in made.stream_of(writer(), events)
        if "index" in chunk.data and "delta" in chunk.data
    ]
    assert deltas == [{"type": "input_json_delta", "partial_json": "{}"}]


def test_a_stream_that_fails_ends_with_an_error(answered: Any) -> None:
    import anthropic

    writing = writer()
    chunks = [
        *writing.start(),
        *writing.push(0, ThinkingDelta("x")),
        *writing.fail(RequestError(503, "the engine died")),
    ]
    client = answered(made.sse(chunks), "text/event-stream")
    with (
        pytest.raises(anthropic.APIStatusError, match="the engine died"),
        client.messages.stream(max_tokens=9, model="demo", messages=[HELLO]) as stream,
    ):
        stream.until_done()


@pytest.mark.parametrize(
    ("status", "kind", "name"),
    [
        (400, "BadRequestError", "invalid_request_error"),
        (401, "AuthenticationError", "authentication_error"),
        (404, "NotFoundError", "not_found_error"),
        (429, "RateLimitError", "rate_limit_error"),
        (413, "ContentTooLargeError", "request_too_large"),
        (500, "InternalServerError", "api_error"),
        (503, "ServiceUnavailableError", "overloaded_error"),
    ],
)
def test_errors_are_those_of_anthropics_client(answered: Any, status: int, kind: str, name: str) -> None:
    import anthropic

    content = json.dumps(error_body(RequestError(status, "it does not work", param="model"))).encode()
    with pytest.raises(anthropic.APIStatusError) as caught:
        answered(content, "application/json", status).messages.create(
            max_tokens=9, model="x", messages=[HELLO]
        )
    assert caught.value.body["error"]["type"] == name
    assert caught.value.body["error"]["message"] == "it does not work"
    assert type(caught.value).__name__ == kind


def test_a_prompt_that_is_too_long_is_an_invalid_request() -> None:
    told = error_body(as_request_error(PromptTooLongError("too long")))
    assert told["error"]["type"] == "invalid_request_error"
    assert told["error"]["message"] == "prompt is too long: too long", (
        "the words that make Claude Code compact"
    )


def test_a_request_is_plain_data() -> None:
    assert isinstance(read_request(body(tools=[TOOL])), ServerRequest)
