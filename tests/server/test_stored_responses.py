"""/v1/responses and /v1/messages over HTTP: what is stored, counted, refused, and kept alive."""

from __future__ import annotations

from typing import Any

import api_events as made
import httpx
import pytest
from live_server import LiveServer

from mlx_qwen3.server.anthropic.read import read_request as read_messages
from mlx_qwen3.server.anthropic.write import MessageWriter
from mlx_qwen3.server.responses.read import read_request as read_responses
from mlx_qwen3.server.responses.store import ResponseStore
from mlx_qwen3.server.responses.write import ResponseWriter

HELLO = {"model": "demo", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def create(http: httpx.Client, **fields: Any) -> Any:
    body = {"model": "demo", "input": "hi", "max_output_tokens": 20, "temperature": 0}
    reply = http.post("/v1/responses", json=body | fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_response_can_be_read_again_listed_and_deleted(http: httpx.Client) -> None:
    first = create(http)
    second = create(http, input="and?", previous_response_id=first["id"])
    address = f"/v1/responses/{second['id']}"
    assert http.get(address).json() == second
    listed = http.get(f"{address}/input_items", params={"order": "asc"}).json()
    texts = [item["content"][0]["text"] for item in listed["data"] if item.get("role") == "user"]
    assert texts == ["hi", "and?"]
    page = http.get(f"{address}/input_items", params={"limit": 1}).json()
    assert (len(page["data"]), page["has_more"]) == (1, True)
    rest = http.get(f"{address}/input_items", params={"after": page["last_id"]}).json()
    assert len(rest["data"]) == len(listed["data"]) - 1
    assert http.delete(address).json() == {"id": second["id"], "object": "response", "deleted": True}
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        reply = http.request(method, address + path)
        assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("GET", "?stream=true", "stream"),
        ("GET", "/input_items?limit=0", "limit"),
        ("GET", "/input_items?limit=x", "limit"),
        ("GET", "/input_items?after=nothing", "after"),
        ("GET", "/input_items?order=", "order"),
        ("POST", "/cancel", "background"),
    ],
)
def test_what_cannot_be_done_with_a_stored_response(
    http: httpx.Client, method: str, path: str, named: str
) -> None:
    reply = http.request(method, f"/v1/responses/{create(http)['id']}{path}")
    assert reply.status_code == 400
    assert named in reply.json()["error"]["message"]


def test_nulls_of_an_item_are_not_listed(http: httpx.Client) -> None:
    item = {"id": None, "type": None, "status": None, "role": "user", "content": "hi", "phase": None}
    (listed,) = http.get(f"/v1/responses/{create(http, input=[item])['id']}/input_items").json()["data"]
    assert listed["id"].startswith("in_resp_")
    assert (listed["type"], listed["status"], "phase" in listed) == ("message", "completed", False)


def test_counts_are_those_of_the_prompt(http: httpx.Client) -> None:
    counted = http.post("/v1/responses/input_tokens", json={"model": "demo", "input": "hi"}).json()
    assert counted == {
        "object": "response.input_tokens",
        "input_tokens": create(http)["usage"]["input_tokens"],
    }
    usage = http.post("/v1/messages", json=HELLO).json()["usage"]
    counted = http.post("/v1/messages/count_tokens", json=HELLO | {"max_tokens": None}).json()
    assert counted["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


def test_claude_codes_models_are_answered_by_the_one_there_is(http: httpx.Client) -> None:
    reply = http.post("/v1/messages?beta=true", json=HELLO | {"model": "claude-opus-4-6"})
    assert reply.status_code == 200, reply.text
    assert reply.json()["model"] == "demo"


def test_a_changing_billing_header_voids_no_cache(http: httpx.Client) -> None:
    def usage(token: str) -> Any:
        header = {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1; cch={token};"}
        rules = {"type": "text", "text": "Be kind, and say that the sky is blue whenever somebody asks. " * 8}
        return http.post("/v1/messages", json=HELLO | {"system": [header, rules]}).json()["usage"]

    usage("1a2b3")
    assert usage("9f8e7")["input_tokens"] <= 2, "all but what a pass needs was there"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/responses"])
@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b"\xff", 400), (b'{"model": "../../etc/passwd"}', 400), (b"", 400)],
)
def test_errors_have_the_form_of_their_api(http: httpx.Client, path: str, body: bytes, status: int) -> None:
    reply = http.post(path, content=body, headers={"content-type": "application/json"})
    told = reply.json()
    assert reply.status_code == status
    assert told["error"]["message"]
    assert told.get("type") == ("error" if "messages" in path else None)


def test_wrong_methods_and_origins_too(http: httpx.Client) -> None:
    assert http.get("/v1/messages").json()["type"] == "error"
    reply = http.post("/v1/messages", json=HELLO, headers={"origin": "https://evil.example"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (403, "permission_error")


def test_a_stream_says_at_once_that_it_has_begun(server: LiveServer, http: httpx.Client) -> None:
    for path, body, begun in (
        ("/v1/messages", HELLO, "event: message_start"),
        (
            "/v1/responses",
            {"model": "demo", "input": "hi", "max_output_tokens": 5},
            "event: response.created",
        ),
    ):
        with http.stream("POST", path, json=body | {"stream": True}) as reply:
            lines = list(reply.iter_lines())
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert lines[0] == begun


def test_keep_alives_are_data_and_change_nothing(tmp_path: Any) -> None:
    """Some clients count data only, and no comments of the stream."""
    anthropic, openai = pytest.importorskip("anthropic"), pytest.importorskip("openai")
    httpx2 = pytest.importorskip("httpx2")
    store = ResponseStore(tmp_path)
    messages = MessageWriter(read_messages(HELLO), made.STARTED)
    responses = ResponseWriter(read_responses({"input": "hi"}, store), made.STARTED, store.save)

    def stream(writer: Any) -> bytes:
        chunks = writer.start()
        for event in made.TURN:
            alive = writer.keep_alive()
            assert alive
            assert all(isinstance(chunk.data, dict) for chunk in alive)
            chunks += [*alive, *writer.push(0, event)]
        return made.sse([*chunks, *writer.keep_alive(), *writer.end()])

    def transport(content: bytes) -> Any:
        headers = {"content-type": "text/event-stream"}
        return httpx2.MockTransport(lambda _: httpx2.Response(200, content=content, headers=headers))

    http = anthropic.DefaultHttpxClient(transport=transport(stream(messages)))
    client = anthropic.Anthropic(api_key="x", base_url="http://server", http_client=http)
    with client.messages.stream(**HELLO) as running:
        assert "".join(running.text_stream) == "It is warm."
    http = openai.DefaultHttpxClient(transport=transport(stream(responses)))
    client = openai.OpenAI(api_key="x", base_url="http://server/v1", http_client=http)
    with client.responses.stream(model="demo", input="hi") as running:
        for _ in running:
            pass
        assert running.get_final_response().output_text == "It is warm."
