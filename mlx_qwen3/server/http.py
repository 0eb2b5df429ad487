"""The HTTP side of an endpoint: bodies within limits, answers, streams of server-sent events, disconnects."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mlx_qwen3.engine.streams import collect
from mlx_qwen3.events import Done, Event
from mlx_qwen3.server.config import Limits
from mlx_qwen3.server.errors import RequestError, as_request_error, bad_request
from mlx_qwen3.server.generation.running import Generation
from mlx_qwen3.server.protocol import ApiProtocol
from mlx_qwen3.server.request import Chunk, ServerRequest, Started, Writer
from mlx_qwen3.server.service import Service
from mlx_qwen3.tokenizer.messages import without_surrogates

Read = Callable[[dict[str, Any]], ServerRequest]
MakeWriter = Callable[[ServerRequest, Started], Writer]
Endpoint = Callable[[Request], Awaitable[Response]]

SSE_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
# How often it is looked, in the time that a client may leave what was sent unread, whether it has.
LOOKS = 4
CLIENT_LEFT = 499  # nginx's status for a client that closed the connection, in metrics alone


class JsonResponse(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def to_json(value: Any) -> bytes:
    """JSON in UTF-8, without spaces."""
    return _encode(value).encode()


def error_response(protocol: ApiProtocol, error: RequestError) -> JsonResponse:
    """An error in the form of a protocol."""
    headers = {"retry-after": str(error.retry_after)} if error.retry_after is not None else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JsonResponse(protocol.error_body(error), error.status, headers)


def sse(chunks: Sequence[Chunk]) -> bytes:
    """Chunks as server-sent events."""
    parts: list[bytes] = []
    for chunk in chunks:
        if chunk.event is not None:
            parts.append(b"event: " + chunk.event.encode() + b"\n")
        data = chunk.data.encode() if isinstance(chunk.data, str) else to_json(chunk.data)
        parts.append(b"data: " + data + b"\n\n")
    return b"".join(parts)


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object in the body of a request. Raises RequestError."""
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        # A page of another site can send text/plain without asking; JSON it cannot.
        raise RequestError(415, f"the body must be application/json, not {kind:.40}")
    body = await _read_body(request, limits)
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise bad_request("the body is not UTF-8", code="invalid_json") from None
    except RecursionError:
        raise bad_request("the body is nested too deeply", code="invalid_json") from None
    except ValueError as error:
        raise bad_request(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise bad_request("the body must be a JSON object", code="invalid_json")
    try:
        return dict(without_surrogates(value))
    except RecursionError:
        raise bad_request("the body is nested too deeply", code="invalid_json") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


async def _read_body(request: Request, limits: Limits) -> bytes:
    too_large = RequestError(413, f"the body may have {limits.body:,} bytes", code="body_too_large")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body:
                    raise too_large
    except TimeoutError:
        raise RequestError(408, "the body did not arrive in time", code="timeout") from None
    return bytes(body)


def json_endpoint(
    service: Service, protocol: ApiProtocol, answer: Callable[[Request, dict[str, Any]], Awaitable[Any]]
) -> Endpoint:
    """An endpoint that answers a JSON body with JSON."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await read_json(request, service.config.limits)
            response: Response = JsonResponse(await answer(request, body))
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)
        except Exception as error:  # noqa: BLE001  # the client gets it
            response = error_response(protocol, as_request_error(error))
        service.metrics.request(protocol.name, response.status_code)
        return response

    return endpoint


def generation_endpoint(
    service: Service, protocol: ApiProtocol, read: Read, make_writer: MakeWriter
) -> Endpoint:
    """An endpoint that generates.

    Args:
        service: Runs the request.
        protocol: For its errors.
        read: Makes a ServerRequest of a body; runs on a thread of its own.
        make_writer: Makes the writer of a request that was accepted.
    """

    async def endpoint(request: Request) -> Response:
        try:
            body = await read_json(request, service.config.limits)
            asked = await asyncio.to_thread(_read_checked, read, body, service, key_of(request))
            generation = await service.start(asked)
            writer = _writer(make_writer, asked, generation)
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)
        except Exception as error:  # noqa: BLE001  # the client gets it
            response = error_response(protocol, as_request_error(error))
            service.metrics.request(protocol.name, response.status_code)
            return response
        return GenerationResponse(service, protocol, generation, writer)

    return endpoint


def _writer(make_writer: MakeWriter, asked: ServerRequest, generation: Generation) -> Writer:
    try:
        return make_writer(asked, generation.started)
    except BaseException:
        generation.cancel()
        raise


def key_of(request: Request) -> str:
    """Who sent a request, for the fair queue: the name of its API key, else its address."""
    return str(request.scope.get("mlx_qwen3.key", ""))


def _read_checked(read: Read, body: dict[str, Any], service: Service, key: str) -> ServerRequest:
    from dataclasses import replace

    asked, limits = replace(read(body), key=key), service.config.limits
    for name, count, most in (
        ("messages", len(asked.messages or ()), limits.messages),
        ("tools", len(asked.tools), limits.tools),
        ("n", asked.choices, limits.choices),
    ):
        if count > most:
            raise bad_request(f"{name}: {count:,} are more than the {most:,} that this server takes", name)
    if asked.schema is not None and len(json.dumps(asked.schema)) > limits.schema:
        raise bad_request(f"a schema may have {limits.schema:,} characters", "response_format")
    return asked


class GenerationResponse(Response):
    """Streams a generation, or answers with all of it; cancels it as soon as the client has left."""

    def __init__(self, service: Service, protocol: ApiProtocol, generation: Generation, writer: Writer):
        self.status_code, self.background = 200, None
        self._service, self._protocol = service, protocol
        self._generation, self._writer = generation, writer
        self._seconds = service.config.limits.send_seconds
        self._sending_since: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = self._stream if self._generation.request.stream else self._answer
        work = asyncio.ensure_future(run(scope, receive, send))
        left = asyncio.ensure_future(_disconnected(receive))
        try:
            while not (work.done() or left.done() or self._is_unread()):
                await asyncio.wait(
                    {work, left}, timeout=self._seconds / LOOKS, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            self._generation.cancel()
            for task in (work, left):
                if not task.done():
                    task.cancel()
        if work.done() and not work.cancelled():
            work.result()
        else:
            self._service.metrics.disconnects += 1
            self._service.metrics.request(self._protocol.name, CLIENT_LEFT)
            with suppress(asyncio.CancelledError, Exception):
                await work

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        headers += [(name.encode(), value.encode()) for name, value in SSE_HEADERS.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send(send, self._writer.start())
        status = 200
        try:
            async for events in self._generation.batches(self._service.config.limits.keep_alive):
                chunks = [chunk for number, event in events for chunk in self._writer.push(number, event)]
                await self._send(send, chunks if events else self._writer.keep_alive())
            await self._send(send, self._writer.end())
        except RequestError as error:
            status = error.status
            await self._send(send, self._writer.fail(error))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._service.metrics.request(self._protocol.name, status)

    async def _send(self, send: Send, chunks: Sequence[Chunk]) -> None:
        if chunks:
            self._sending_since = time.monotonic()
            await send({"type": "http.response.body", "body": sse(chunks), "more_body": True})
            self._sending_since = None

    def _is_unread(self) -> bool:
        """Whether the client has left what was sent unread for too long: it is as one that has left."""
        since = self._sending_since
        return since is not None and time.monotonic() - since > self._seconds

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        events: dict[int, list[Event]] = {}
        try:
            async for batch in self._generation.batches():
                for number, event in batch:
                    events.setdefault(number, []).append(event)
            if not all(isinstance(events[number][-1], Done) for number in events) or not events:
                raise RequestError(503, "the server stopped before the answer", code="stopping")
            replies = [collect(iter(events[number])) for number in sorted(events)]
            response = JsonResponse(self._writer.whole(replies))
        except RequestError as error:
            response = error_response(self._protocol, error)
        await response(scope, receive, send)
        self._service.metrics.request(self._protocol.name, response.status_code)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


__all__ = [
    "JsonResponse",
    "error_response",
    "generation_endpoint",
    "json_endpoint",
    "key_of",
    "read_json",
    "sse",
    "to_json",
]
