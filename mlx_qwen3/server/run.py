"""Runs the server until it is told to stop: listens, loads the models, stops gracefully."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import uvicorn

from mlx_qwen3.engine.engine import Engine
from mlx_qwen3.errors import EngineError
from mlx_qwen3.server.app import Entrance, create_app
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.models import ModelPool, OpenEngine
from mlx_qwen3.server.service import Service

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
BACKLOG = 1024
# Beyond the time that running requests have to end: for what they still send.
GRACE_SECONDS = 5.0
# Bytes of a request's head: long paths and headers end in a 400.
MAX_HEAD = 64 * 2**10

OnReady = Callable[[Service, ServerConfig], object]


def serve(config: ServerConfig, open_engine: OpenEngine = Engine, on_ready: OnReady | None = None) -> None:
    """Serve until SIGINT or SIGTERM. A second signal stops at once.

    Args:
        config: How the server is run. Port 0 takes a free one.
        open_engine: Loads a model, for progress bars.
        on_ready: Called when clients can connect, with the service and the config as it came to be.

    Raises:
        EngineError: The address cannot be listened on, or an engine died.
        ModelNotFoundError, CheckpointError, InsufficientMemoryError: As of Engine, for the first model.
    """
    pool = ModelPool(config, open_engine)
    listener = listen(config.host, config.port)
    config = replace(config, port=listener.getsockname()[1])
    failures: list[str] = []
    entrance = create_app(config, pool, lambda failure: _fail(server, failures, failure))
    server = Server(entrance, config, on_ready)
    try:
        asyncio.run(_run(server, listener))
    finally:
        listener.close()
    if failures:
        raise EngineError(failures[0])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises EngineError."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        # With the protocol named, asyncio turns Nagle's algorithm off; left on, a client's first token waits
        # for the acknowledgement of the headers, which systems put off by 40 ms and more.
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        problem = error.strerror or str(error)
        raise EngineError(f"cannot listen on {host}, port {port}: {problem}; choose another port") from None
    except OverflowError:
        raise EngineError(f"there is no port {port}: ports are numbers up to 65535") from None
    return listener


class Server(uvicorn.Server):
    """uvicorn's server, which lets running requests end and cuts off those that take too long."""

    def __init__(self, entrance: Entrance, config: ServerConfig, on_ready: OnReady | None = None):
        super().__init__(
            uvicorn.Config(
                entrance,
                lifespan="off",  # run here, so that a model that cannot be loaded is an error like any other
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=False,
                ws="none",
                timeout_keep_alive=75,
                h11_max_incomplete_event_size=MAX_HEAD,
                timeout_graceful_shutdown=int(config.stop_seconds + GRACE_SECONDS),
            )
        )
        self.entrance = entrance
        self._config, self._on_ready = config, on_ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on a signal, and not raise it again afterwards: that is how a server is meant to end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready(self.entrance.service, self._config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.create_task(self.entrance.service.end_requests())
        await super().shutdown(sockets)
        ending.cancel()


async def _run(server: Server, listener: socket.socket) -> None:
    async with server.entrance.lifespan():
        await server.serve(sockets=[listener])


def _fail(server: Server, failures: list[str], failure: str) -> None:
    """End the server. What is still being sent is the error: clients have a moment to read it."""
    failures.append(failure)
    server.should_exit = True
    asyncio.get_running_loop().call_later(GRACE_SECONDS, setattr, server, "force_exit", True)
