"""MCPServers: several servers on one thread with an event loop, used through synchronous methods."""

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

from mlx_qwen3.errors import install_command
from mlx_qwen3.tools.base import Tool, ToolError, ToolOutput
from mlx_qwen3.tools.mcp.config import ServerConfig

try:
    from mlx_qwen3.tools.mcp.connection import Connection, State
except ImportError as missing:
    raise ToolError(f"MCP servers need the `mcp` package: {install_command('mcp')} ({missing})") from missing

T = TypeVar("T")

# The SDK logs errors of servers. We report them ourselves, and keep them off the terminal.
logging.getLogger("mcp").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The state of a server. `tools` is their number, `log_file` holds what the server wrote on stderr."""

    name: str
    state: State
    tools: int
    problem: str
    origin: str
    log_file: Path


@dataclass(frozen=True, slots=True)
class PromptInfo:
    """A prompt a server offers. `arguments`: name -> description; `required`: the names it needs."""

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
    """Connections to several servers. A server that fails does not affect the others.

    A context manager: `with MCPServers(configs) as servers` starts and closes them. The object is a source
    of tools for a ToolBox.

    Args:
        configs: The servers, as `load_config` returns them.
        log_folder: Folder for what they write on stderr. The default is in the user's log folder.
        on_change: Called with one line, on the servers' thread, when a server ends, changes its tools, or
            becomes ready or fails after `start` returned.

    Raises:
        ToolError: `configs` are not ServerConfig objects.
    """

    def __init__(
        self,
        configs: Sequence[ServerConfig],
        *,
        log_folder: Path | None = None,
        on_change: Callable[[str], object] | None = None,
    ):
        if not isinstance(configs, Sequence) or not all(isinstance(c, ServerConfig) for c in configs):
            raise ToolError("configs must be ServerConfig objects, as load_config returns them")
        self._configs = {config.name: config for config in configs}
        self._log_folder = log_folder or _default_log_folder()
        self._on_change = on_change
        self._connections: dict[str, Connection] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: set[str] = set()  # servers whose state `wait` will return; not reported to on_change

    def __enter__(self) -> MCPServers:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> list[ServerStatus]:
        """Connect to all servers. Returns their states once each is ready or has failed."""
        self.begin()
        return self.wait()

    def begin(self) -> None:
        """Begin to connect to all servers and return at once; call `wait` next."""
        if self._loop is None:
            self._loop = _start_loop()
            atexit.register(self.close)
        self._wait(self._begin(list(self._configs)))

    def wait(self, seconds: float | None = None) -> list[ServerStatus]:
        """The state of each server, once all are ready or have failed, or after `seconds`."""
        self._wait(self._settle(list(self._configs), seconds))
        return self.statuses

    def restart(self, server: str) -> ServerStatus:
        """Stop a server if it runs, and connect again. Raises ToolError for an unknown name."""
        self._find(server)
        self._wait(self._stop([server]))
        self._wait(self._begin([server]))
        self._wait(self._settle([server], None))
        return next(status for status in self.statuses if status.name == server)

    def close(self) -> None:
        """Stop all servers. A second call does nothing."""
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
        """The state of each server."""
        return [
            ServerStatus(
                name=name,
                state=connection.state,
                tools=len(connection.tools),
                problem=connection.problem,
                origin=connection.config.origin,
                log_file=connection.log_file,
            )
            for name, connection in self._connections.items()
        ]

    def prompts(self) -> list[PromptInfo]:
        """The prompts of all servers, without those of a server that fails."""
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
        """The messages of a prompt, each a dict with "role" and "content". Raises ToolError."""
        return self._wait(self._find(server).prompt(name, arguments or {}))

    def resources(self) -> list[ResourceInfo]:
        """The resources of all servers, without those of a server that fails."""
        return [
            ResourceInfo(
                server=server,
                uri=entry.uri,
                name=entry.name,
                description=entry.description or "",
                mime_type=entry.mime_type or "",
            )
            for server, entry in self._gather(lambda connection: connection.resources())
        ]

    def read(self, server: str, uri: str) -> str:
        """A resource as text. Raises ToolError."""
        return self._wait(self._find(server).read(uri))

    async def _begin(self, names: list[str]) -> None:
        for name in names:
            self._starting.add(name)
            on_change = partial(self._report, name)
            connection = Connection(self._configs[name], self._log_file(name), self._call, on_change)
            self._connections[name] = connection
            self._tasks[name] = asyncio.ensure_future(connection.run())

    async def _settle(self, names: list[str], seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(self._connections[name].settled.wait() for name in names))
        self._starting.difference_update(names)

    async def _stop(self, names: list[str]) -> None:
        for name in names:
            self._connections[name].stop()
            if self._connections[name].state == "starting":
                self._tasks[name].cancel()
        await asyncio.gather(*(self._tasks[name] for name in names), return_exceptions=True)

    async def _call(self, connection: Connection, name: str, arguments: dict[str, Any]) -> ToolOutput:
        """Run a tool call on the servers' event loop and await it on the caller's."""
        if self._loop is None:
            return ToolOutput(f"The MCP server {connection.config.name} was stopped.", is_error=True)
        future = asyncio.run_coroutine_threadsafe(connection.call(name, arguments), self._loop)
        return await asyncio.wrap_future(future)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the servers' event loop and wait for its result."""
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
        """What `ask` returns for each server that is ready, with the server's name."""
        collected = []
        for name, connection in self._connections.items():
            if connection.state == "ready":
                with contextlib.suppress(ToolError):
                    collected += [(name, item) for item in self._wait(ask(connection))]
        return collected

    def _find(self, server: str) -> Connection:
        if server not in self._connections:
            known = ", ".join(self._connections) or "none"
            raise ToolError(f'there is no MCP server "{server}"; there are: {known}')
        return self._connections[server]

    def _report(self, name: str, line: str) -> None:
        if self._on_change is not None and name not in self._starting:
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
