"""The application: every request passes the gate to its protocol; and what runs beside requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_qwen3.errors import Qwen3Error
from mlx_qwen3.server.auth import Gate, cors_headers
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.errors import RequestError, as_request_error
from mlx_qwen3.server.http import error_response
from mlx_qwen3.server.models import ModelPool
from mlx_qwen3.server.monitoring.status import status_routes
from mlx_qwen3.server.openapi import openapi_routes
from mlx_qwen3.server.protocol import ApiProtocol
from mlx_qwen3.server.service import Service

log = logging.getLogger("mlx_qwen3.server")

PROTOCOLS = ("openai", "anthropic", "responses", "page")
OPEN_PATHS = ("/health",)
MOST_THREADS = 64
LOOK_AFTER_SECONDS, WATCH_SECONDS = 2.0, 0.5
# How long those who wait may take to be told that the engine died.
TELL_SECONDS = 5.0

OnFailure = Callable[[str], object]


def load_protocols() -> list[ApiProtocol]:
    """The protocols of this package."""
    names = [f"mlx_qwen3.server.{name}" for name in PROTOCOLS]
    return [import_module(name).PROTOCOL for name in names if find_spec(name) is not None]


def create_app(
    config: ServerConfig, models: ModelPool | None = None, on_failure: OnFailure | None = None
) -> Entrance:
    """The server's ASGI application.

    Args:
        config: How it is run.
        models: Its models; made of `config` by default.
        on_failure: Called once, with a line for a person, if an engine dies. The server cannot go on then.
    """
    service = Service(config, models or ModelPool(config))
    protocols = load_protocols()
    routes = [*status_routes(service), *openapi_routes()]
    for protocol in protocols:
        routes += protocol.routes(service)

    def respond(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = RequestError(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
        return error_response(protocol_of(request.url.path, protocols), as_request_error(error))

    app = Starlette(routes=routes, exception_handlers={HTTPException: respond, Exception: respond})
    return Entrance(app, config, service, protocols, on_failure)


def protocol_of(path: str, protocols: list[ApiProtocol]) -> ApiProtocol:
    """The protocol that a path belongs to: the one that names most of it."""
    lengths = {
        protocol.name: max((len(start) for start in protocol.paths if path.startswith(start)), default=-1)
        for protocol in protocols
    }
    return max(protocols, key=lambda protocol: lengths[protocol.name])


async def _look_after(service: Service) -> None:
    while True:
        await asyncio.sleep(LOOK_AFTER_SECONDS)
        try:
            await service.look_after()
        except Exception:
            log.exception("looking after models and caches failed")


async def _watch(service: Service, on_failure: OnFailure | None) -> None:
    """Wait for an engine to die; then for all requests to end with that error, and report it."""
    while (failure := service.models.failure()) is None or service.is_stopping:
        await asyncio.sleep(WATCH_SECONDS)
    deadline = time.monotonic() + TELL_SECONDS
    while service.running and time.monotonic() < deadline:
        await asyncio.sleep(WATCH_SECONDS / 10)
    if on_failure is not None:
        on_failure(failure)


class Entrance:
    """The application: every request passes here. Gate, request id, log line.

    Attributes:
        service: Runs the requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: ServerConfig,
        service: Service,
        protocols: list[ApiProtocol],
        on_failure: OnFailure | None = None,
    ):
        self.service = service
        self._app, self._gate, self._protocols = app, Gate(config), protocols
        self._on_failure = on_failure
        self._open = {*OPEN_PATHS, *(path for protocol in protocols for path in protocol.open_paths)}

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Loads the models and what runs beside requests; at the end saves caches and unloads."""
        service = self.service
        # What waits for an engine waits on a thread; none of it may keep prompts from being made.
        threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="mlx_qwen3 server")
        asyncio.get_running_loop().set_default_executor(threads)
        await service.models.preload()
        watch = _watch(service, self._on_failure)
        tasks = [asyncio.create_task(_look_after(service)), asyncio.create_task(watch)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await service.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets
            await send({"type": "websocket.close", "code": 1000})
            return
        answer = _Answer(send)
        origin: str | None = None
        try:
            headers = Headers(scope=scope)
            self._gate.check_host(headers)
            origin = self._gate.check_origin(headers)
            answer.cors = cors_headers(origin) if origin is not None else {}
            if scope["method"] == "OPTIONS" and origin is not None:
                await Response(status_code=204)(scope, receive, answer)
                return
            self._set_key(scope, headers)
            await self._app(scope, receive, answer)
        except RequestError as error:
            protocol = protocol_of(scope["path"], self._protocols)
            self.service.metrics.request(protocol.name, error.status)
            await error_response(protocol, error)(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - answer.began
            log.info("%s %s %s %s %.3f s", answer.id, scope["method"], _path(scope), answer.status, seconds)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        """The protocol of ASGI, for other servers than ours."""
        await receive()
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
        except Qwen3Error as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})

    def _set_key(self, scope: Scope, headers: Headers) -> None:
        if scope["path"] in self._open:
            name = None
        else:
            name = self._gate.key_name(headers)
        client = scope.get("client")
        # Without keys, clients of one machine are one client: they share caches, and the queue.
        scope["mlx_qwen3.key"] = name if name is not None else str(client[0]) if client else ""


class _Answer:
    """Sends an answer on, with headers of the server's own."""

    def __init__(self, send: Send):
        self.id, self.status, self.began = uuid4().hex, 0, time.perf_counter()
        self.cors: Mapping[str, str] = {}
        self._send = send

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            headers["x-content-type-options"] = "nosniff"
            for name, value in self.cors.items():
                headers[name] = value
        await self._send(message)


def _path(scope: Scope) -> str:
    """The path for the log, without what could forge a line."""
    return "".join(char if char.isprintable() else "?" for char in scope["path"])[:200]


__all__ = ["create_app", "load_protocols", "protocol_of"]
