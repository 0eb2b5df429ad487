"""The Responses API without HTTP: bodies to requests, and events to what OpenAI's client makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import api_events as made
import pytest

from mlx_qwen3.events import AnswerDelta, Done, Event, Logprobs, ThinkingDelta, ThinkingDone, TokenLogprob
from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.openai.errors import error_body
from mlx_qwen3.server.request import Started
from mlx_qwen3.server.responses.items import seal, unseal
from mlx_qwen3.server.responses.read import read_request
from mlx_qwen3.server.responses.store import ResponseStore
from mlx_qwen3.server.responses.write import ResponseWriter

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather now.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
CALL = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Paris"}'}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "22 C"}
HI = {"role": "user", "content": "hi"}


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path / "responses")


@pytest.fixture
def messages_of(store: ResponseStore) -> Callable[..., list[Any]]:
    def read(*items: Any, **fields: Any) -> list[Any]:
        return list(read_request({"input": list(items)} | fields, store).messages or ())

    return read


class Server:
    """Answers requests with given events, and stores them."""

    def __init__(self, store: ResponseStore):
        self.store = store
        self._count = 0

    def writer(self, **fields: Any) -> ResponseWriter:
        self._count += 1
        request = read_request({"model": "demo", "input": "hi", "tools": [TOOL]} | fields, self.store)
        return ResponseWriter(
            request, Started(f"{self._count:08x}", "demo", 1_700_000_000, 30), self.store.save
        )

    def whole(self, events: Iterable[Event], **fields: Any) -> dict[str, Any]:
        return dict(self.writer(**fields).whole([made.reply_of(events)]))

    def stream(self, events: Iterable[Event], **fields: Any) -> list[Any]:
        return list(made.stream_of(self.writer(**fields), events))


@pytest.fixture
def server(store: ResponseStore) -> Server:
    return Server(store)


# Requests


def test_a_plain_request(store: ResponseStore) -> None:
    request = read_request(
        {
            "model": "demo",
            "input": "hi",
            "instructions": "Be kind.",
            "max_output_tokens": 9,
            "temperature": 0,
        },
        store,
    )
    assert request.messages == [{"role": "system", "content": "Be kind."}, HI]
    assert request.sampling == {"max_tokens": 9, "temperature": 0}
    assert request.thinking is None, "the server's default"


def test_a_tool_loop_is_one_message_of_the_assistant(messages_of: Callable[..., list[Any]]) -> None:
    reasoning = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hm."}],
    }
    said = {
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "status": "completed",
        "content": [{"type": "output_text", "text": "One moment.", "annotations": [], "logprobs": []}],
    }
    function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert messages_of(HI, reasoning, said, CALL, RESULT) == [
        HI,
        {
            "role": "assistant",
            "reasoning_content": "Hm.",
            "content": "One moment.",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "22 C"},
    ]


def test_a_second_answer_begins_a_second_message(messages_of: Callable[..., list[Any]]) -> None:
    said = {"role": "assistant", "content": "Yes."}
    roles = [message["role"] for message in messages_of(HI, said, CALL, RESULT, said)]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert [message["role"] for message in messages_of(HI, said, said)] == ["user", "assistant", "assistant"]


def test_developers_speak_as_the_system_wherever_they_stand(messages_of: Callable[..., list[Any]]) -> None:
    late = {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]}
    assert messages_of(HI, late)[1] == {"role": "system", "content": "Be brief."}


def test_outputs_of_tools_may_have_parts(messages_of: Callable[..., list[Any]]) -> None:
    parts = [{"type": "input_text", "text": "22 C"}, {"type": "input_image", "image_url": "data:,"}]
    text = messages_of(HI, CALL, RESULT | {"output": parts})[-1]["content"]
    assert text.startswith("22 C\n")
    assert "cannot see" in text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"content": [{"type": "reasoning_text", "text": "Hm."}], "summary": []}, "Hm."),
        ({"encrypted_content": seal("Hm. ✓"), "summary": [{"type": "summary_text", "text": "H"}]}, "Hm. ✓"),
        (
            {
                "encrypted_content": "gAAAA of another server",
                "summary": [{"type": "summary_text", "text": "H"}],
            },
            "H",
        ),
        ({"summary": []}, ""),
    ],
)
def test_thinking_that_comes_back(messages_of: Callable[..., list[Any]], given: Any, expected: str) -> None:
    assert (
        messages_of(HI, {"type": "reasoning", "id": "rs_1"} | given, CALL)[1]["reasoning_content"] == expected
    )


def test_sealing_hides_nothing_and_loses_nothing() -> None:
    assert unseal(seal("a\nb ✓")) == "a\nb ✓"
    assert unseal("mlx-qwen3:not base64!") == ""


def test_what_codex_sends_is_taken(store: ResponseStore) -> None:
    spawn = TOOL | {"name": "spawn_agent"}
    request = read_request(
        {
            "model": "demo",
            "stream": True,
            "store": False,
            "input": [{"type": "message", "id": "msg_1", **HI}],
            "tools": [
                TOOL,
                {"type": "namespace", "name": "agents", "description": "", "tools": [spawn]},
                {"type": "web_search", "external_web_access": False},
            ],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "reasoning": {"summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "k",
            "client_metadata": {"turn_id": "t"},
        },
        store,
    )
    assert [tool["function"]["name"] for tool in request.tools] == ["get_weather", "spawn_agent"]
    listed = [tool["type"] for tool in request.options["echo"]["tools"]]
    assert listed == ["function", "namespace"], "the response says that there is no web search"
    call = made.call_events(0, "spawn_agent", ["{}"], {})
    writer = ResponseWriter(request, made.STARTED, store.save)
    done = [chunk.data for chunk in made.stream_of(writer, [*call, Done(made.stats("tool_calls"))])][-1]
    assert done["response"]["output"][0]["namespace"] == "agents"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ("auto", None)),
        ("none", ("none", None)),
        ("required", ("required", None)),
        ({"type": "function", "name": "get_weather"}, ("required", "get_weather")),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "get_weather"}],
            },
            ("required", None),
        ),
    ],
)
def test_choices_of_tools(store: ResponseStore, choice: Any, expected: Any) -> None:
    other = TOOL | {"name": "other"}
    request = read_request({"input": "hi", "tools": [TOOL, other], "tool_choice": choice}, store)
    assert (request.tool_choice, request.tool_name) == expected
    is_reduced = isinstance(choice, dict) and choice["type"] == "allowed_tools"
    assert len(request.tools) == (1 if is_reduced else 2)


@pytest.mark.parametrize(
    ("effort", "expected"),
    [(None, (None, None)), ("none", (False, None)), ("low", (True, 1024)), ("high", (True, None))],
)
def test_effort(store: ResponseStore, effort: str | None, expected: Any) -> None:
    request = read_request({"input": "hi", "reasoning": {"effort": effort}}, store)
    assert (request.thinking, request.thinking_budget) == expected


def test_schemas(store: ResponseStore) -> None:
    def schema(form: Any) -> Any:
        return read_request({"input": "hi", "text": {"format": form, "verbosity": "low"}}, store).schema

    assert schema({"type": "json_schema", "name": "a", "schema": {"type": "array"}, "strict": True}) == {
        "type": "array"
    }
    assert schema({"type": "json_object"}) == {"type": "object"}
    assert schema({"type": "text"}) is None


def test_tools_and_choices_are_repeated_as_they_were_understood(store: ResponseStore) -> None:
    types = pytest.importorskip("openai.types.responses")
    bare = {"type": "function", "name": "bare", "description": None, "unknown": None, "defer_loading": False}
    group = {"type": "namespace", "name": "here", "tools": [{"type": "function", "name": "inner"}], "x": None}
    for choice in (
        None,
        "required",
        {"type": "function", "name": "bare", "x": None},
        {"type": "allowed_tools", "tools": [{"name": "bare"}], "y": None},
    ):
        body = {"input": "hi", "tools": [bare, group, TOOL], "tool_choice": choice}
        echo = read_request(body, store).options["echo"]
        response = types.Response.model_validate(
            {"id": "r", "object": "response", "created_at": 0, "output": [], "model": "demo", **echo}
        )
        assert [tool.name for tool in response.tools] == ["bare", "here", TOOL["name"]]
        assert "unknown" not in echo["tools"][0]


THOUGHT = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "I see."}]}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": None, "instructions": "Be kind."}, "input"),
        ({"input": [HI | {"id": [7]}]}, "input[0].id"),
        ({"input": [HI | {"status": {}}]}, "input[0].status"),
        (
            {"input": [{"role": "user", "content": [{"text": "x", "annotations": 3}]}]},
            "content[0].annotations",
        ),
        ({"input": [THOUGHT | {"summary": [{"text": 7}]}]}, "input[0].summary[0].text"),
        ({"input": [THOUGHT | {"content": ["said"]}]}, "input[0].content[0]"),
        ({"tools": [TOOL | {"strict": [None]}]}, "tools[0].strict"),
        ({"tools": [{"type": "namespace", "name": "a", "description": 1}]}, "tools[0].description"),
        ({"input": [{"role": "narrator", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_00_0"}]}, "input[0].id"),
        ({"input": [HI | {"mood": "good"}]}, "input[0].mood"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "other"}}, "tool_choice.name"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"include": ["everything"]}, "include"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"temperature": 3}, "temperature"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"frobnicate": 1}, "frobnicate"),
        ({"previous_response_id": "resp_unknown"}, "resp_unknown"),
        ({"previous_response_id": "../../etc/passwd"}, "passwd"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(
    store: ResponseStore, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read_request({"model": "demo", "input": "hi"} | fields, store)
    assert caught.value.status in (400, 404)
    assert named in caught.value.message


# Answers


def test_each_event_is_one_of_openais_types(server: Server) -> None:
    responses = pytest.importorskip("openai.types.responses")
    pydantic = pytest.importorskip("pydantic")
    event_type = pydantic.TypeAdapter(responses.ResponseStreamEvent)
    for fields in ({}, {"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]}):
        for number, chunk in enumerate(server.stream(made.CALLING, **fields)):
            assert chunk.event == chunk.data["type"]
            assert chunk.data["sequence_number"] == number
            event = event_type.validate_python(chunk.data)
            assert event.type == chunk.event, "it is of the type it names, not of one that happens to fit"


def test_the_order_of_the_stream(server: Server) -> None:
    kinds = [chunk.event.removeprefix("response.") for chunk in server.stream(made.CALLING)]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        *["function_call_arguments.delta"] * 3,
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


def test_the_stream_and_the_whole_say_the_same(server: Server) -> None:
    openai = pytest.importorskip("openai.types.responses")
    for events in (made.TURN, made.CALLING):
        streamed, whole = server.stream(events)[-1].data["response"], server.whole(events)
        for response in (streamed, whole):
            openai.Response.model_validate(response)
            for item in response["output"]:
                item["id"] = item["id"].split("_")[0]
                item.pop("call_id", None)
        assert streamed | {"id": ""} == whole | {"id": ""}


def test_items_of_the_stream_add_up_to_the_response(server: Server) -> None:
    chunks = [chunk.data for chunk in server.stream(made.CALLING)]
    done = [data["item"] for data in chunks if data["type"] == "response.output_item.done"]
    assert done == chunks[-1]["response"]["output"]
    assert [item["type"] for item in done] == ["reasoning", "message", "function_call", "function_call"]
    text = "".join(
        data["delta"] for data in chunks if data["type"] == "response.function_call_arguments.delta"
    )
    assert text == "".join(item["arguments"] for item in done if item["type"] == "function_call")


def test_usage(server: Server) -> None:
    usage = server.whole(made.TURN)["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (30, 12, 42)
    assert usage["input_tokens_details"]["cached_tokens"] == 20
    assert usage["output_tokens_details"]["reasoning_tokens"] == 5


@pytest.mark.parametrize("reason", ["length", "loop"])
def test_an_answer_that_was_cut_off_is_incomplete(server: Server, reason: Any) -> None:
    events = [AnswerDelta("It is"), Done(made.stats(reason))]
    last = server.stream(events)[-1]
    assert last.event == "response.incomplete"
    assert last.data["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last.data["response"]["output"][0]["status"] == "incomplete"
    assert server.whole(events)["status"] == "incomplete"


def test_a_call_that_cannot_be_used_is_text(server: Server) -> None:
    broken = made.call_events(0, "launch", ["{}"], None, error="There is no tool of that name.")
    assert [item["type"] for item in server.whole([*broken, Done(made.stats())])["output"]] == ["message"]
    assert [
        item["type"] for item in server.stream([*broken, Done(made.stats())])[-1].data["response"]["output"]
    ] == ["message"]


def test_a_summary_is_sent_where_it_is_asked_for(server: Server) -> None:
    item = server.whole(made.TURN, reasoning={"summary": "auto"})["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "Let me see."}]
    assert "content" not in item


def test_logprobs_are_of_the_answer_alone(server: Server) -> None:
    def token(text: str) -> Logprobs:
        return Logprobs(TokenLogprob(1, text, -0.5), (TokenLogprob(2, "x", -1.0),))

    events: list[Event] = [
        token("Hm"),
        ThinkingDelta("Hm"),
        token("</think>"),
        ThinkingDone(1, 0.1),
        token("It"),
        AnswerDelta("It"),
        token(" is"),
        AnswerDelta(" is"),
        token("<|im_end|>"),
        Done(made.stats()),
    ]
    fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    for response in (server.whole(events, **fields), server.stream(events, **fields)[-1].data["response"]):
        part = response["output"][1]["content"][0]
        assert [item["token"] for item in part["logprobs"]] == ["It", " is"]
        assert part["logprobs"][0]["top_logprobs"][0]["token"] == "x"


def test_the_request_is_repeated(server: Server) -> None:
    response = server.whole(
        made.TURN,
        temperature=0.5,
        metadata={"a": "b"},
        instructions="Be kind.",
        text={"format": {"type": "json_object"}},
        reasoning={"effort": "low"},
    )
    assert response["temperature"] == 0.5
    assert response["metadata"] == {"a": "b"}
    assert response["instructions"] == "Be kind."
    assert response["text"] == {"format": {"type": "json_object"}}
    assert response["reasoning"] == {"effort": "low", "summary": None}


def test_a_stream_that_fails_says_so(server: Server) -> None:
    writer = server.writer()
    writer.start()
    (chunk,) = writer.fail(RequestError(503, "the engine died"))
    assert chunk.event == "response.failed"
    assert chunk.data["response"]["status"] == "failed"
    assert chunk.data["response"]["error"]["message"] == "the engine died"


# What is stored


def test_a_conversation_goes_on_from_a_stored_response(
    server: Server, messages_of: Callable[..., list[Any]]
) -> None:
    first = server.whole(made.CALLING, input="What is the weather?", instructions="Be kind.")
    calls = [item for item in first["output"] if item["type"] == "function_call"]
    outputs = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": "22 C"} for call in calls
    ]
    second = server.whole(made.TURN, input=outputs, previous_response_id=first["id"])
    messages = messages_of("x", previous_response_id=second["id"], input="Thanks.")
    assert [message["role"] for message in messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "user",
    ]
    assert messages[1]["reasoning_content"] == "I need the weather."
    assert [call["id"] for call in messages[1]["tool_calls"]] == [call["call_id"] for call in calls]
    assert messages[4]["content"] == "It is warm."
    assert "Be kind." not in json.dumps(messages), "instructions are of one request"


def test_items_can_be_named_by_their_ids(server: Server, messages_of: Callable[..., list[Any]]) -> None:
    response = server.whole(made.CALLING)
    named = [{"type": "item_reference", "id": item["id"]} for item in response["output"]]
    assert messages_of(HI, *named)[1]["content"] == "One moment."
    assert len(messages_of(HI, *named)[1]["tool_calls"]) == 2


def test_what_is_not_to_be_stored_is_not(server: Server) -> None:
    response = server.whole(made.TURN, store=False)
    assert server.store.response(response["id"]) is None


def test_responses_outlive_the_server(server: Server, tmp_path: Path) -> None:
    response = server.whole(made.TURN)
    assert ResponseStore(tmp_path / "responses").response(response["id"]) == response
    assert server.store.delete(response["id"])
    assert not server.store.delete(response["id"])
    assert server.store.response(response["id"]) is None


def test_the_oldest_are_removed(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, max_responses=3)
    for number in range(6):
        store.save({"id": f"resp_{number}", "output": []}, [])
        if number > 1:
            assert store.response("resp_0"), "what is used stays"
    assert {path.stem for path in tmp_path.iterdir()} == {"resp_0", "resp_4", "resp_5"}


def test_bytes_are_limited(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, max_bytes=3000)
    for number in range(6):
        store.save({"id": f"resp_{number}", "output": []}, ["x" * 1000])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000
    assert store.response("resp_5")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"items": 1, "response": {}}', b"\xff", b"[" * 100_000]
)
def test_a_damaged_file_is_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "resp_1.json").write_bytes(content)
    store = ResponseStore(tmp_path)
    assert store.response("resp_1") is None
    assert store.conversation("resp_1") is None


@pytest.mark.parametrize(
    "name", ["resp_../x", "resp_", "../resp_1", "resp_a/b", "x", "resp_1\n", "resp_" + "a" * 100]
)
def test_ids_are_never_paths(tmp_path: Path, name: str) -> None:
    store = ResponseStore(tmp_path / "inner")
    store.save({"id": name, "output": []}, [])
    assert store.response(name) is None
    assert not store.delete(name)
    assert list(tmp_path.rglob("*.json")) == []


def test_a_circle_of_stored_responses_ends(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path)
    store.save({"id": "resp_1", "output": [], "previous_response_id": "resp_1"}, [])
    assert store.conversation("resp_1") is None


# With OpenAI's own client


@pytest.fixture
def client(server: Server) -> Any:
    """OpenAI's client, whose requests a Server answers with a turn that calls a tool, or streams it."""
    openai, httpx = pytest.importorskip("openai"), pytest.importorskip("httpx2")

    def handle(request: Any) -> Any:
        body = json.loads(request.content)
        body["tools"] = body.get("tools") or [TOOL]
        try:
            writer = server.writer(**body)
        except RequestError as error:
            return httpx.Response(error.status, json=error_body(error))
        if body.get("stream"):
            return httpx.Response(
                200,
                content=made.bytes_of(writer, made.CALLING),
                headers={"content-type": "text/event-stream"},
            )
        return httpx.Response(200, json=dict(writer.whole([made.reply_of(made.TURN)])))

    http = openai.DefaultHttpxClient(transport=httpx.MockTransport(handle))
    return openai.OpenAI(api_key="x", base_url="http://server/v1", http_client=http, max_retries=0)


def test_the_client_reads_a_response(client: Any) -> None:
    response = client.responses.create(model="demo", input="hi")
    assert response.output_text == "It is warm."
    assert response.status == "completed"
    following = client.responses.create(model="demo", input="and?", previous_response_id=response.id)
    assert following.previous_response_id == response.id


def test_the_client_reads_a_stream(client: Any) -> None:
    with client.responses.stream(model="demo", input="hi") as stream:
        for _ in stream:
            pass
        response = stream.get_final_response()
    assert response.output_text == "One moment."
    assert [item.arguments for item in response.output if item.type == "function_call"] == [
        '{"city": "Paris"}',
        '{"city": "Rome"}',
    ]


def test_the_client_reads_errors(client: Any) -> None:
    import openai

    with pytest.raises(openai.BadRequestError, match="background") as caught:
        client.responses.create(model="demo", input="hi", background=True)
    assert caught.value.param == "background"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="demo", input="hi", previous_response_id="resp_0")
