"""The connection to one MCP server: start, tools, calls, end. Runs on the event loop of `servers.py`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mcp import Client, MCPError
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp_types import (
    CONNECTION_CLOSED,
    REQUEST_TIMEOUT,
    Implementation,
    Prompt,
    Resource,
    ToolListChangedNotification,
)
from mcp_types import Tool as ToolEntry

from mlx_qwen3 import __version__
from mlx_qwen3.errors import one_line
from mlx_qwen3.tools.base import Tool, ToolError, ToolOutput
from mlx_qwen3.tools.mcp.config import ServerConfig
from mlx_qwen3.tools.mcp.content import resource_text, to_output, to_text
from mlx_qwen3.tools.mcp.http import http_transport
from mlx_qwen3.tools.mcp.stdio import Log, stdio_transport

State = Literal["starting", "ready", "failed", "stopped"]
Caller = Callable[["Connection", str, dict[str, Any]], Awaitable[ToolOutput]]

MAX_PAGES = 100
MAX_TOOLS = 500
MAX_DESCRIPTION_CHARACTERS = 10_000
SECONDS_BETWEEN_REFRESHES = 0.2


@dataclass
class MCPTool(Tool):
    """A tool of a server. `caller` runs a call on the servers' event loop."""

    connection: Connection = field(kw_only=True, repr=False)
    caller: Caller = field(kw_only=True, repr=False)

    async def call(self, arguments: dict[str, Any]) -> ToolOutput:
        """Call the tool on its server."""
        return await self.caller(self.connection, self.name, arguments or {})


class Connection:
    """The connection to a server, from `run` to `stop`.

    Args:
        config: How to reach the server.
        log_file: Where its stderr is written.
        caller: Runs a tool call on the event loop of this connection.
        on_change: Called with a line when the server is ready, changes its tools, fails or ends.

    Attributes:
        state, problem: The server's state, and why it failed.
        tools: The tools it offers now.
        settled: Set once it is ready or has failed.
    """

    def __init__(
        self, config: ServerConfig, log_file: Path, caller: Caller, on_change: Callable[[str], None]
    ):
        self.config, self.log_file = config, log_file
        self.state: State = "starting"
        self.problem = ""
        self.tools: tuple[MCPTool, ...] = ()
        self.settled = asyncio.Event()
        self._caller, self._on_change = caller, on_change
        self._http_error = ""
        self._log: Log | None = None
        self._client: Client | None = None
        self._stopping, self._ended, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Connect, and serve until the server ends or `stop` is called."""
        try:
            if self.config.problem:
                raise ToolError(self.config.problem)
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self.config.start_timeout):
                    client = await stack.enter_async_context(self._make_client())
                    self._client = client
                    self.tools = await self._list_tools(client)
                self._set_state("ready")
                await self._serve(client)
        except Exception as error:  # noqa: BLE001  a server must not end the program
            self._set_state("failed", self._describe(error))
        else:
            self._record_end()
        finally:
            self._client, self.tools = None, ()
            self.state = "stopped" if self.state == "starting" else self.state
            self.settled.set()

    def stop(self) -> None:
        """Disconnect and stop the server."""
        self._stopping.set()

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolOutput:
        """Call a tool. A failure is in the output."""
        try:
            async with self._request() as client:
                return to_output(await client.call_tool(name, arguments))
        except ToolError as error:
            return ToolOutput(str(error), is_error=True)

    async def prompts(self) -> list[Prompt]:
        """The prompts the server offers. Raises ToolError."""
        async with self._request() as client:
            if client.server_capabilities.prompts is None:
                return []
            return await _all_pages(client.list_prompts, lambda page: page.prompts)

    async def prompt(self, name: str, arguments: dict[str, str]) -> list[dict[str, str]]:
        """The messages of a prompt. Raises ToolError."""
        async with self._request() as client:
            result = await client.get_prompt(name, arguments)
        return [{"role": entry.role, "content": to_text([entry.content])} for entry in result.messages]

    async def resources(self) -> list[Resource]:
        """The resources the server offers. Raises ToolError."""
        async with self._request() as client:
            if client.server_capabilities.resources is None:
                return []
            return await _all_pages(client.list_resources, lambda page: page.resources)

    async def read(self, uri: str) -> str:
        """A resource as text. Raises ToolError."""
        async with self._request() as client:
            result = await client.read_resource(uri)
        return "\n".join(map(resource_text, result.contents))

    def _make_client(self) -> Client:
        if self.config.url:
            transport = http_transport(self.config, self._on_http_error)
        else:
            self._log = Log(self.log_file)
            transport = stdio_transport(self.config, self._log, self._ended)
        return Client(
            transport,
            client_info=Implementation(name="mlx-qwen3", version=__version__),
            read_timeout_seconds=self.config.timeout,
            message_handler=self._on_message,
            cache=None,
        )

    def _on_http_error(self, status: int) -> None:
        self._http_error = f" (HTTP {status})"
        if self.state == "starting" and status in (404, 405):
            self._http_error += "; addresses of the older SSE transport are not supported"

    async def _on_message(self, message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._changed.set()

    async def _serve(self, client: Client) -> None:
        """Follow changes of the tools until the server ends or is stopped."""
        ends = [asyncio.ensure_future(event.wait()) for event in (self._stopping, self._ended)]
        watchers = [asyncio.ensure_future(watch(client)) for watch in (self._refresh, self._listen)]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*ends, *watchers):
                task.cancel()
            await asyncio.gather(*ends, *watchers, return_exceptions=True)

    async def _refresh(self, client: Client) -> None:
        """List the tools again after notifications of a change, at most every SECONDS_BETWEEN_REFRESHES."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            with contextlib.suppress(Exception):  # keep the old list; the next call reports the error
                before, self.tools = self.tools, await self._list_tools(client)
                if [tool.definition() for tool in before] != [tool.definition() for tool in self.tools]:
                    self._on_change(f"MCP server {self.config.name} changed its tools: {len(self.tools)} now")
            await asyncio.sleep(SECONDS_BETWEEN_REFRESHES)

    async def _listen(self, client: Client) -> None:
        """Subscribe to changes of the tools, which servers of protocol 2026-07-28 require."""
        with contextlib.suppress(ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError):
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._changed.set()

    async def _list_tools(self, client: Client) -> tuple[MCPTool, ...]:
        if client.server_capabilities.tools is None:
            return ()
        entries = await _all_pages(client.list_tools, lambda page: page.tools)
        unique: dict[str, ToolEntry] = {}
        for entry in entries[:MAX_TOOLS]:
            if not _needs_task(entry):
                unique.setdefault(entry.name, entry)
        return tuple(map(self._make_tool, unique.values()))

    def _make_tool(self, entry: ToolEntry) -> MCPTool:
        annotations = entry.annotations.model_dump(exclude_none=True) if entry.annotations else {}
        description = ToolOutput(entry.description or "").cut(MAX_DESCRIPTION_CHARACTERS).text
        return MCPTool(
            entry.name,
            description,
            dict(entry.input_schema),
            self.config.name,
            self.config.full_origin,
            annotations,
            identity=self.config.identity,
            connection=self,
            caller=self._caller,
        )

    @asynccontextmanager
    async def _request(self) -> AsyncIterator[Client]:
        """The client for one request, with the time limit. All failures become ToolError."""
        if self._client is None:
            raise ToolError(f"The MCP server {self.config.name} is not running. {self.problem}".strip())
        self._http_error = ""
        try:
            async with asyncio.timeout(self.config.timeout):
                yield self._client
        except ToolError:
            raise
        except Exception as error:
            raise ToolError(f"The MCP server {self.config.name} failed: {self._describe(error)}") from error

    def _set_state(self, state: State, problem: str = "") -> None:
        self.state, self.problem = state, problem
        self._on_change(f"MCP server {self.config.name} {state}: {problem or f'{len(self.tools)} tools'}")
        self.settled.set()

    def _record_end(self) -> None:
        if self._stopping.is_set():
            self.state = "stopped"
        else:
            self._set_state("failed", self._end_reason())

    def _end_reason(self) -> str:
        if self._log is not None and self._log.problem:
            return f"it was ended: {self._log.problem}; its log is {self.log_file}"
        return f"it ended; its log is {self.log_file}"

    def _describe(self, error: BaseException) -> str:
        """What went wrong, in one line."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, TimeoutError) or getattr(error, "code", 0) == REQUEST_TIMEOUT:
            limit = self.config.timeout if self.state == "ready" else self.config.start_timeout
            return f"it did not answer within {limit:g} seconds"
        if getattr(error, "code", 0) == CONNECTION_CLOSED and not self.config.url:
            return self._end_reason()
        http_error, self._http_error = self._http_error, ""
        return one_line(error, limit=500) + http_error


def _needs_task(entry: ToolEntry) -> bool:
    """Whether the tool can only be called as an MCP task, which this client does not do."""
    return entry.execution is not None and entry.execution.task_support == "required"


async def _all_pages(fetch: Callable[..., Awaitable[Any]], items: Callable[[Any], list[Any]]) -> list[Any]:
    """The items of all pages, of MAX_PAGES at most."""
    collected: list[Any] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await fetch(cursor=cursor)
        collected += items(page)
        if not page.next_cursor or page.next_cursor == cursor:
            break
        cursor = page.next_cursor
    return collected
