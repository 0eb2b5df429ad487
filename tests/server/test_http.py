"""The HTTP side: limits, bad bodies, disconnects, keep-alive, full queues, keys, dead engines."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from live_server import LiveServer, live_server

from mlx_qwen3.server.app import _watch
from mlx_qwen3.server.config import Limits, ServerConfig
from mlx_qwen3.server.generation.inbox import Courier, Inbox, Item
from mlx_qwen3.server.http import GenerationResponse
from mlx_qwen3.server.openai import PROTOCOL
from mlx_qwen3.server.request import Chunk

# Seconds long, so that it still runs when a test gets to what it does meanwhile.
LONG = {"messages": [{"role": "user", "content": "hello " * 300}], "max_tokens": 3000, "stream": True,
        "min_tokens": 3000, "temperature": 1.5}  # fmt: skip
CHAT = "/v1/chat/completions"
DISCONNECTS = 1000 if os.environ.get("MLX_QWEN3_LONG_TESTS") else 12  # of each kind


@pytest.fixture(scope="module")
def tight() -> Iterator[LiveServer]:
    """A server with small limits and keys."""
    limits = Limits(
        body=20_000, waiting=3, waiting_of_one=2, keep_alive=0.05, messages=10, tools=2, choices=4
    )
    keys = {"secret-one": "ann", "secret-two": "bob"}
    with live_server(ServerConfig(limits=limits, api_keys=keys, prepares=False)) as running:
        yield running


@pytest.fixture
def ann(tight: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=tight.url, headers={"authorization": "Bearer secret-one"}, timeout=60
    ) as client:
        yield client


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def held(server: LiveServer) -> Iterator[Callable[[], None]]:
    """Keep the engine busy, as a long prompt would, until the block ends or calls what it is given."""
    began, is_over = threading.Event(), threading.Event()

    def busy() -> None:
        began.set()
        is_over.wait(100)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.engine.call, busy)
        try:
            assert began.wait(60)
            yield is_over.set
        finally:
            is_over.set()
            running.result()


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"[]", 400, "object"),
        (b"\xff\xfe", 400, ""),
        (b'{"messages": [], "temperature": NaN}', 400, "NaN"),
        (b"[" * 10_000, 400, ""),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, 400, ""),
        (b'{"messages": "' + b"x" * 30_000 + b'"}', 413, "20,000"),
        (json.dumps({"messages": [{"role": "user", "content": "x"}] * 11}).encode(), 400, "messages"),
        (json.dumps({"messages": [{"role": "user", "content": "x"}], "n": 5}).encode(), 400, "n:"),
    ],
)
def test_bad_bodies(ann: httpx.Client, body: bytes, status: int, word: str) -> None:
    answer = ann.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert word in answer.json()["error"]["message"]


def test_a_body_of_another_type_is_refused(ann: httpx.Client) -> None:
    """A page of another site may send text/plain without asking."""
    assert ann.post(CHAT, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def test_half_a_surrogate_pair_harms_nobody(ann: httpx.Client) -> None:
    body = b'{"messages":[{"role":"user","content":"\\ud800"}],"max_tokens":2,"model":"\\ud800"}'
    headers = {"content-type": "application/json"}
    assert ann.post(CHAT, content=body, headers=headers).status_code == 404
    without_model = body.replace(b',"model":"\\ud800"', b"")
    assert ann.post(CHAT, content=without_model, headers=headers).status_code == 200


def test_unknown_paths_and_methods_answer_in_json(ann: httpx.Client) -> None:
    assert ann.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    assert ann.get(CHAT).status_code == 405
    assert "x-request-id" in ann.get("/v1/nothing").headers


def test_keys_over_http(tight: LiveServer, ann: httpx.Client) -> None:
    assert ann.get("/v1/models").status_code == 200
    with httpx.Client(base_url=tight.url) as stranger:
        assert stranger.get("/health").json() == {"status": "ok"}
        for path in ("/v1/models", "/metrics", "/status", "/slots"):
            answer = stranger.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert stranger.post(CHAT, json={}).json()["error"]["code"] == "invalid_api_key"


def test_a_rebound_name_and_foreign_pages_are_refused(tight: LiveServer) -> None:
    with httpx.Client(base_url=tight.url) as client:
        assert client.get("/health", headers={"host": "evil.example"}).status_code == 403
        for method in ("OPTIONS", "POST", "GET"):
            answer = client.request(method, CHAT, headers={"origin": "http://evil.example"})
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers


def test_a_named_page_may_ask() -> None:
    with live_server(ServerConfig(allowed_origins=("https://chat.example",))) as server:
        headers = {"origin": "https://chat.example", "access-control-request-method": "POST"}
        answer = httpx.options(server.url + CHAT, headers=headers)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        assert "content-type" in answer.headers["access-control-allow-headers"]
        answer = httpx.get(server.url + "/v1/models", headers={"origin": "https://chat.example"})
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"


def test_headers_at_once_and_data_by_the_clock(tight: LiveServer, ann: httpx.Client) -> None:
    with (
        held(tight) as release,
        ann.stream("POST", CHAT, json={**LONG, "max_tokens": 1, "min_tokens": 0}) as answer,
    ):
        lines = (line for line in answer.iter_lines() if line.startswith("data: {"))
        before = [next(lines) for _ in range(4)]  # one at once, and then one each 0.05 s
        release()
        assert len(list(lines)) >= 2
    assert all(json.loads(line[6:])["choices"][0]["delta"]["content"] == "" for line in before)


def test_a_client_that_left_is_cancelled_and_its_prompt_kept(tight: LiveServer, ann: httpx.Client) -> None:
    with ann.stream("POST", CHAT, json=LONG) as answer:
        for line in answer.iter_lines():
            if "reasoning" in line:
                break
    wait_until(lambda: not tight.service.running and tight.engine.scheduler.is_idle)
    assert tight.service.models.default.users == 0
    usage = ann.post(CHAT, json={**LONG, "stream": False, "max_tokens": 1, "min_tokens": 0}).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= usage["prompt_tokens"] - 1


@pytest.mark.parametrize("stream", [True, False])
def test_clients_that_leave_at_random_moments_leave_nothing_behind(
    tight: LiveServer, ann: httpx.Client, stream: bool
) -> None:
    for number in range(DISCONNECTS):
        seconds = 0.001 + 0.002 * (number % 40)
        if stream:
            with ann.stream("POST", CHAT, json=LONG):
                time.sleep(seconds)
        else:
            with pytest.raises(httpx.TimeoutException):
                ann.post(CHAT, json={**LONG, "stream": False}, timeout=httpx.Timeout(60, read=seconds))
    wait_until(lambda: not tight.service.running and tight.engine.scheduler.is_idle)
    queue = tight.service.models.default.queue
    assert queue is not None
    assert (queue.running, queue.waiting, tight.service.models.default.users) == (0, 0, 0)


def test_a_full_queue_says_when_to_come_back(tight: LiveServer, ann: httpx.Client) -> None:
    queue = tight.service.models.default.queue
    assert queue is not None
    most = queue.slots + 2  # run, or wait for their turn
    with ThreadPoolExecutor(40) as pool, held(tight) as release:
        body = {**LONG, "stream": False, "max_tokens": 1, "min_tokens": 0}
        asked = [pool.submit(ann.post, CHAT, json=body) for _ in range(most + 4)]
        wait_until(lambda: sum(each.done() for each in asked) == 4)
        their = {"x-api-key": "secret-two"}
        asked_by_other = pool.submit(httpx.post, tight.url + CHAT, json=body, headers=their, timeout=60)
        wait_until(lambda: queue.waiting == 3)
        release()
        answers, other = [each.result() for each in asked], asked_by_other.result()
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 4
    assert int(refused[0].headers["retry-after"]) >= 1
    assert refused[0].json()["error"]["type"] == "rate_limit_error"
    assert {answer.status_code for answer in answers} == {200, 429}
    assert other.status_code == 200


def test_what_is_going_on(tight: LiveServer, ann: httpx.Client) -> None:
    with ann.stream("POST", CHAT, json=LONG) as answer:
        next(answer.iter_lines())
        slots: list[Any] = []  # the first line may say only that the request waits
        wait_until(lambda: slots.extend(ann.get("/slots").json()) or slots)
        status = ann.get("/status").json()
        [slot] = slots
        assert slot["key"] == "ann"
        assert slot["state"] in ("waiting", "prefill", "decode")
        assert "hello" not in json.dumps(status)  # no word of a prompt
        metrics = ann.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in metrics.text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2
    assert 'mlx_qwen3_loaded{model="demo"} 1' in metrics.text


def test_a_request_that_takes_too_long_is_cut_off() -> None:
    with live_server(ServerConfig(limits=Limits(request_seconds=0.3))) as server:
        answer = httpx.post(server.url + CHAT, json={**LONG, "stream": False}, timeout=60)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "timeout"


def test_a_dead_engine_fails_health_and_ends_the_server() -> None:
    with live_server() as server:
        assert httpx.get(f"{server.url}/health").status_code == 200

        class Panic(BaseException):
            """What a Rust library raises."""

        def die() -> None:
            raise Panic("the library broke")

        with pytest.raises(Exception, match="died"):
            server.engine.call(die)
        answer = httpx.get(f"{server.url}/health")
        assert answer.status_code == 503
        assert "the library broke" in answer.json()["error"]
        assert httpx.post(server.url + CHAT, json={**LONG, "stream": False}, timeout=60).status_code == 503
        wait_until(lambda: server.failures)
        assert "\n" not in server.failures[0]


def test_a_dead_engine_is_reported_once_all_who_wait_were_told() -> None:
    told: list[str] = []
    running = {"one": object()}
    service: Any = SimpleNamespace(
        models=SimpleNamespace(failure=lambda: "it died"), running=running, is_stopping=False
    )

    async def main() -> None:
        watch = asyncio.create_task(_watch(service, told.append))
        await asyncio.sleep(0.2)
        assert told == []
        running.clear()
        await asyncio.wait_for(watch, 60)

    asyncio.run(main())
    assert told == ["it died"]


def test_stopping_lets_answers_end() -> None:
    with live_server() as server, ThreadPoolExecutor(1) as pool:
        body = {"messages": [{"role": "user", "content": "what is 47+85?"}], "temperature": 0}
        with held(server):
            running = pool.submit(httpx.post, server.url + CHAT, json=body, timeout=60)
            wait_until(lambda: server.service.running)
            server.server.should_exit = True
        assert "132" in running.result().json()["choices"][0]["message"]["content"]
    assert not server.service.models.default.is_loaded


def test_stopping_cuts_off_what_takes_too_long() -> None:
    with live_server(ServerConfig(stop_seconds=0.2)) as server:
        with httpx.stream("POST", server.url + CHAT, json=LONG, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.server.should_exit = True
            rest = [line for line in lines if line]
        assert len(rest) < 3000
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    """It stays connected, and its end of the connection is full."""
    cancelled, sent = asyncio.Event(), []
    service: Any = SimpleNamespace(
        config=ServerConfig(limits=Limits(send_seconds=0.1)),
        metrics=SimpleNamespace(disconnects=0, request=lambda *_: None),
    )
    generation: Any = SimpleNamespace(
        request=SimpleNamespace(stream=True), cancel=cancelled.set, batches=lambda _: never()
    )
    writer: Any = SimpleNamespace(start=lambda: [Chunk("a piece")])

    async def never() -> AsyncIterator[Any]:
        pytest.fail("nothing is read on before the client has read what was sent")
        yield

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Any:
        return await asyncio.Event().wait()

    async def main() -> None:
        response = GenerationResponse(service, PROTOCOL, generation, writer)
        await asyncio.wait_for(response({}, receive, send), 60)

    asyncio.run(main())
    assert sent == ["http.response.start", "http.response.body"]
    assert cancelled.is_set()
    assert service.metrics.disconnects == 1


def test_one_request_that_fails_on_the_event_loop_stops_no_other() -> None:
    async def main() -> list[Item]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        courier = Courier(loop)

        def fail(_: Item) -> None:
            raise ValueError("broken")

        broken, whole = Inbox(courier, fail), Inbox(courier, lambda _: None)
        for inbox in (broken, whole, broken, whole):
            inbox.put((0, None))
        got: list[Item] = []
        while len(got) < 2:
            got += await asyncio.wait_for(whole.get(60), 60)
        return got

    assert asyncio.run(main()) == [(0, None)] * 2


def test_an_inbox_waits_no_longer_than_it_is_told() -> None:
    async def main() -> list[Item]:
        return await asyncio.wait_for(Inbox(Courier(asyncio.get_running_loop()), print).get(0.01), 60)

    assert asyncio.run(main()) == []
