"""A real server of ours on a free port, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mlx_qwen3 import Engine
from mlx_qwen3.server.app import create_app
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.models import ModelPool, OpenEngine
from mlx_qwen3.server.run import Server, listen
from mlx_qwen3.server.service import Service


@dataclass
class LiveServer:
    """url: where it is. service, server: its parts, on its own thread."""

    url: str
    service: Service
    server: Server
    failures: list[str]

    @property
    def engine(self) -> Any:
        """The engine of the default model."""
        return self.service.models.default.engine

    @property
    def store(self) -> Any:
        return self.service.models.default.store


@contextmanager
def live_server(
    config: ServerConfig | None = None,
    open_engine: OpenEngine = Engine,
    on_pool: Callable[[ModelPool], object] = lambda pool: None,
) -> Iterator[LiveServer]:
    """Serve until the block ends, then stop gracefully. on_pool: gets the models before one is loaded."""
    config = config or ServerConfig()
    listener = listen("127.0.0.1", 0)
    config = replace(config, port=listener.getsockname()[1])
    failures: list[str] = []
    pool = ModelPool(config, open_engine)
    on_pool(pool)
    entrance = create_app(config, pool, failures.append)
    ready = threading.Event()
    server = Server(entrance, config, lambda *_: ready.set())
    errors: list[BaseException] = []

    def run() -> None:
        async def main() -> None:
            async with entrance.lifespan():
                await server.serve(sockets=[listener])

        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001  # the test gets it
            errors.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="live server")
    thread.start()
    ready.wait(120)
    if errors:
        raise errors[0]
    try:
        yield LiveServer(f"http://127.0.0.1:{config.port}", entrance.service, server, failures)
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
