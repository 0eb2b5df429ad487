"""/openapi.json: it says every path and every field that there is, and no other."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import LiveServer
from starlette.routing import Route

from benchmarks.server_fuzz import BODIES, change
from mlx_qwen3.server.anthropic import read as anthropic
from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.fields import Fields
from mlx_qwen3.server.openai.chat import read_chat
from mlx_qwen3.server.openai.completions import read_completion
from mlx_qwen3.server.openapi import document
from mlx_qwen3.server.responses.read import read_request as read_responses
from mlx_qwen3.server.responses.store import ResponseStore

jsonschema = pytest.importorskip("jsonschema")
Read = Callable[[dict[str, Any]], object]


def body_schema(path: str) -> dict[str, Any]:
    schema: dict[str, Any] = document()["paths"][path]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    return schema


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Read]:
    store = ResponseStore(Path(tmp_path_factory.mktemp("responses")))
    return {
        "/v1/chat/completions": read_chat,
        "/v1/completions": read_completion,
        "/v1/messages": anthropic.read_request,
        "/v1/messages/count_tokens": anthropic.read_count_request,
        "/v1/responses": lambda body: read_responses(body, store),
    }


def test_every_path_is_described(server: LiveServer) -> None:
    paths = document()["paths"]
    app: Any = server.server.entrance._app
    routes = [route for route in app.routes if isinstance(route, Route)]
    described = {
        (path, method.upper())
        for path, methods in paths.items()
        for method in methods
        if method != "parameters"
    }
    there_are = {
        (route.path.replace(":path", ""), method)
        for route in routes
        for method in route.methods or ()
        if method != "HEAD"
    }
    with_v1 = {(f"/v1{path}", method) for path, method in there_are}
    assert described <= there_are
    assert {
        each for each in there_are - described if (f"/v1{each[0]}", each[1]) not in with_v1 & described
    } == set()


def test_the_document_is_served(http: httpx.Client) -> None:
    assert http.get("/openapi.json").json() == document()
    for path, body in BODIES.items():
        jsonschema.validate(body, body_schema(path))


def test_the_fields_described_are_those_that_are_read(
    readers: dict[str, Read], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a reader looks at, or would take, is in the document; and nothing else is."""
    for path, read in readers.items():
        seen: set[str] = set()
        finish = Fields.finish

        def spy(self: Fields, seen: set[str] = seen, finish: Any = finish) -> None:
            if not self._path:
                seen |= self._read
            finish(self)

        monkeypatch.setattr(Fields, "finish", spy)
        read(copy.deepcopy(BODIES[path]))
        monkeypatch.undo()
        assert seen == set(body_schema(path)["properties"]), path


def test_what_the_document_forbids_is_refused(readers: dict[str, Read]) -> None:
    draw = random.Random(7)
    forbidden = 0
    for _ in range(1500):
        path = draw.choice(list(readers))
        body = copy.deepcopy(BODIES[path])
        for _ in range(draw.choice([1, 1, 2])):
            change(body, draw)
        if jsonschema.Draft202012Validator(body_schema(path)).is_valid(body):
            continue
        forbidden += 1
        try:
            readers[path](body)
        except RequestError:
            continue
        pytest.fail(f"{path} took {body}")
    assert forbidden > 300
