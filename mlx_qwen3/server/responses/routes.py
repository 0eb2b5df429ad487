"""The endpoints of the Responses API: create, count, and what is stored."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from mlx_qwen3.server.errors import RequestError, as_request_error, bad_request
from mlx_qwen3.server.http import JsonResponse, error_response, generation_endpoint, json_endpoint
from mlx_qwen3.server.openai.errors import error_body
from mlx_qwen3.server.protocol import ApiProtocol
from mlx_qwen3.server.request import ServerRequest, Started
from mlx_qwen3.server.responses.read import read_count_request, read_request
from mlx_qwen3.server.responses.store import ResponseStore
from mlx_qwen3.server.responses.write import ResponseWriter
from mlx_qwen3.server.service import Service

MOST_LISTED = 100
Answer = Callable[[Request], Mapping[str, Any]]


def _routes(service: Service) -> Sequence[BaseRoute]:
    store = ResponseStore(_folder(service))

    def writer(request: ServerRequest, started: Started) -> ResponseWriter:
        return ResponseWriter(request, started, store.save)

    async def count(_: Request, body: dict[str, Any]) -> dict[str, Any]:
        request = await asyncio.to_thread(read_count_request, body, store)
        return {"object": "response.input_tokens", "input_tokens": await service.count_tokens(request)}

    create = generation_endpoint(service, PROTOCOL, partial(read_request, store=store), writer)
    one = "/v1/responses/{response_id}"
    return [
        Route("/v1/responses", create, methods=["POST"]),
        Route("/v1/responses/input_tokens", json_endpoint(service, PROTOCOL, count), methods=["POST"]),
        Route(one, _endpoint(service, partial(_retrieve, store)), methods=["GET"]),
        Route(one, _endpoint(service, partial(_delete, store)), methods=["DELETE"]),
        Route(f"{one}/input_items", _endpoint(service, partial(_list_items, store)), methods=["GET"]),
        Route(f"{one}/cancel", _endpoint(service, partial(_cancel, store)), methods=["POST"]),
    ]


def _folder(service: Service) -> Path:
    """Where responses are stored: beside the caches, or, where nothing is to be kept, until the end."""
    if service.config.cache_folder is not None:
        return service.config.cache_folder / "responses"
    folder = Path(tempfile.mkdtemp(prefix="mlx-qwen3-responses-"))
    weakref.finalize(service, shutil.rmtree, folder, ignore_errors=True)
    return folder


def _endpoint(service: Service, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            response = JsonResponse(await asyncio.to_thread(answer, request))
        except RequestError as error:
            response = error_response(PROTOCOL, as_request_error(error))
        service.metrics.request(PROTOCOL.name, response.status_code)
        return response

    return endpoint


def _retrieve(store: ResponseStore, request: Request) -> Mapping[str, Any]:
    if request.query_params.get("stream", "false") != "false":
        raise bad_request("a stored response is not streamed again", "stream", "unsupported_field")
    return dict(_found(store.response(request.path_params["response_id"])))


def _delete(store: ResponseStore, request: Request) -> Mapping[str, Any]:
    name = request.path_params["response_id"]
    _found(store.delete(name) or None)
    return {"id": name, "object": "response", "deleted": True}


def _cancel(store: ResponseStore, request: Request) -> Mapping[str, Any]:
    _found(store.response(request.path_params["response_id"]))
    raise bad_request("only responses made in the background can be cancelled; close the connection", None)


def _list_items(store: ResponseStore, request: Request) -> Mapping[str, Any]:
    name, query = request.path_params["response_id"], request.query_params
    items = [_listed(item, name, at) for at, item in enumerate(_found(store.items(name)))]
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise bad_request(f"order must be asc or desc, not {order[:80]!r}", "order")
    if order == "desc":
        items.reverse()
    ids = [item["id"] for item in items]
    if (after := query.get("after")) is not None:
        if after not in ids:
            raise bad_request(f"after {after[:80]!r} is none of the items", "after")
        items = items[ids.index(after) + 1 :]
    limit = query.get("limit", "20")
    if not (limit.isdecimal() and 1 <= int(limit) <= MOST_LISTED):
        raise bad_request(f"limit must be between 1 and {MOST_LISTED}", "limit")
    page = items[: int(limit)]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    has_more = len(items) > len(page)
    return {"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": has_more}


def _listed(item: Mapping[str, Any], response_id: str, at: int) -> dict[str, Any]:
    """An input item in its full form."""
    given = {
        name: value for name, value in item.items() if value is not None
    }  # null is as if it were missing
    listed = {"id": f"in_{response_id}_{at}", "type": "message", **given}
    if listed["type"] == "message":
        listed = {"status": "completed", **listed}
        if isinstance(listed.get("content"), str):
            kind = "output_text" if listed.get("role") == "assistant" else "input_text"
            annotated: dict[str, Any] = {"annotations": []} if kind == "output_text" else {}
            listed["content"] = [{"type": kind, "text": listed["content"], **annotated}]
    return listed


def _found(value: Any) -> Any:
    if value is None:
        raise RequestError(404, "there is no such stored response", code="not_found")
    return value


PROTOCOL = ApiProtocol("responses", ("/v1/responses",), error_body, _routes)
