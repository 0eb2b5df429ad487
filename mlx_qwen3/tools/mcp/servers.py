"""MCP servers for the rest of the package: a thread with their event loop, and plain methods.

servers = MCPServers(load_config("mcp.json"))
with servers:
    box = ToolBox(sources=[servers])
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import re
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mlx_qwen3.tools.base import Tool, ToolError, ToolOutput
from mlx_qwen3.tools.mcp.config import ServerConfig, load_config

try:
    from mlx_qwen3.tools.mcp.connection import Connection, State
except ImportError as missing:
    raise ToolError(
        f'MCP servers need the extra "mcp": pip install "mlx-qwen3[mcp]" ({missing})'
    ) from missing

__all__ = ["MCPServers", "PromptInfo", "ResourceInfo", "ServerConfig", "ServerStatus", "load_config"]

T = TypeVar("T")

# The SDK logs what servers get wrong; here it is reported in other ways, and never on the terminal.
logging.getLogger("mcp").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How a server is. `problem` says what went wrong; `log_file` is what it wrote on stderr."""

    name: str
    state: State
    tools: int
    problem: str
    origin: str
    log_file: Path


@dataclass(frozen=True, slots=True)
class PromptInfo:
    """A prompt a server offers. `arguments`: name -> description; `required`: those it needs."""

    server: str
    name: str
    description: str
    arguments: dict[str, str]
    required: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResourceInfo:
    """A resource a server offers."""

    server: str
    uri: str
    name: str
    description: str
    mime_type: str


class MCPServers:
    """Several servers, connected side by side; one that fails leaves the others alone.

    configs: which (see `load_config`). log_folder: for their stderr, by default the user's log folder.
    on_change: gets one line for a person when a server ends, changes its tools, or is ready or has failed
    after `start` returned; called from the servers' thread. A ToolBox takes the object itself as a source
    of tools.
    """

    def __init__(
        self,
        configs: Sequence[ServerConfig],
        *,
        log_folder: Path | None = None,
        on_change: Callable[[str], object] | None = None,
    ):
        self._configs = {config.name: config for config in configs}
        self._log_folder = log_folder or _default_log_folder()
        self._on_change = on_change
        self._connections: dict[str, Connection] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awaited: set[str] = set()  # servers whose state is about to be returned, so not to be told

    def __enter__(self) -> MCPServers:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> list[ServerStatus]:
        """Connect to all servers, and return how each is once it is ready or has failed."""
        self.begin()
        return self.wait()

    def begin(self) -> None:
        """Begin to connect to all servers, and return at once; `wait` is to follow."""
        if self._loop is None:
            self._loop = _start_loop()
            atexit.register(self.close)
        self._wait(self._begin(list(self._configs)))

    def wait(self, seconds: float | None = None) -> list[ServerStatus]:
        """How each server is, once it is ready or has failed, or after `seconds`."""
        self._wait(self._settle(list(self._configs), seconds))
        return self.statuses

    def restart(self, server: str) -> ServerStatus:
        """Stop a server, if it runs, and connect anew. Raises ToolError for an unknown name."""
        self._find(server)
        self._wait(self._stop([server]))
        self._wait(self._begin([server]))
        self._wait(self._settle([server], None))
        return next(status for status in self.statuses if status.name == server)

    def close(self) -> None:
        """Stop all servers. May be called twice."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        atexit.unregister(self.close)
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._stop(list(self._connections)), loop).result(timeout=15)
        loop.call_soon_threadsafe(loop.stop)

    @property
    def tools(self) -> list[Tool]:
        """The tools of all servers that are ready."""
        return [tool for connection in self._connections.values() for tool in connection.tools]

    @property
    def statuses(self) -> list[ServerStatus]:
        """How each server is."""
        return [
            ServerStatus(name, c.state, len(c.tools), c.problem, c.config.origin, c.log_file)
            for name, c in self._connections.items()
        ]

    def prompts(self) -> list[PromptInfo]:
        """The prompts of all servers; those of a server that fails are left out."""
        return [
            PromptInfo(
                server=server,
                name=prompt.name,
                description=prompt.description or "",
                arguments={entry.name: entry.description or "" for entry in prompt.arguments or ()},
                required=tuple(entry.name for entry in prompt.arguments or () if entry.required),
            )
            for server, prompt in self._gather(lambda connection: connection.prompts())
        ]

    def prompt(self, server: str, name: str, arguments: dict[str, str] | None = None) -> list[dict[str, str]]:
        """A prompt's messages, as {"role", "content"}. Raises ToolError."""
        return self._wait(self._find(server).prompt(name, arguments or {}))

    def resources(self) -> list[ResourceInfo]:
        """The resources of all servers; those of a server that fails are left out."""
        return [
            ResourceInfo(server, entry.uri, entry.name, entry.description or "", entry.mime_type or "")
            for server, entry in self._gather(lambda connection: connection.resources())
        ]

    def read(self, server: str, uri: str) -> str:
        """A resource as text. Raises ToolError."""
        return self._wait(self._find(server).read(uri))

    async def _begin(self, names: list[str]) -> None:
        for name in names:
            self._awaited.add(name)
            tell = partial(self._tell, name)
            connection = Connection(self._configs[name], self._log_file(name), self._call, tell)
            self._connections[name] = connection
            self._tasks[name] = asyncio.ensure_future(connection.run())

    async def _settle(self, names: list[str], seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(self._connections[name].settled.wait() for name in names))
        self._awaited.difference_update(names)

    async def _stop(self, names: list[str]) -> None:
        for name in names:
            self._connections[name].stop()
            if self._connections[name].state == "starting":
                self._tasks[name].cancel()
        await asyncio.gather(*(self._tasks[name] for name in names), return_exceptions=True)

    async def _call(self, connection: Connection, name: str, arguments: dict[str, Any]) -> ToolOutput:
        """A tool's call, from whatever event loop to the servers' own."""
        if self._loop is None:
            return ToolOutput(f"The MCP server {connection.config.name} was stopped.", is_error=True)
        future = asyncio.run_coroutine_threadsafe(connection.call(name, arguments), self._loop)
        return await asyncio.wrap_future(future)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise ToolError("the MCP servers were not started")
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _gather(self, ask: Callable[[Connection], Coroutine[Any, Any, list[T]]]) -> list[tuple[str, T]]:
        found = []
        for name, connection in self._connections.items():
            if connection.state == "ready":
                with contextlib.suppress(ToolError):
                    found += [(name, item) for item in self._wait(ask(connection))]
        return found

    def _find(self, server: str) -> Connection:
        if server not in self._connections:
            known = ", ".join(self._connections) or "none"
            raise ToolError(f'there is no MCP server "{server}"; there are: {known}')
        return self._connections[server]

    def _tell(self, name: str, line: str) -> None:
        if self._on_change is not None and name not in self._awaited:
            self._on_change(line)

    def _log_file(self, name: str) -> Path:
        return self._log_folder / (re.sub(r"[^\w.-]", "_", name).lstrip(".") + ".log")


def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()

    def run() -> None:
        try:
            loop.run_forever()
        finally:
            loop.close()

    threading.Thread(target=run, name="mcp servers", daemon=True).start()
    return loop


def _default_log_folder() -> Path:
    from platformdirs import user_log_path

    return user_log_path("mlx-qwen3", appauthor=False) / "mcp"
