"""The tools of a conversation: their names for the model, and running the model's calls."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from mlx_qwen3.events import ToolCall, ToolResult
from mlx_qwen3.tools.approval import ApprovalRequest, Decision
from mlx_qwen3.tools.base import MAX_RESULT_CHARACTERS, Tool, ToolError, ToolOutput
from mlx_qwen3.tools.function import tool as function_tool
from mlx_qwen3.tools.output_text import error_output, without_surrogates

Approve = Callable[[ApprovalRequest], Decision | Awaitable[Decision]]

_POLL_SECONDS = 0.05
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


class ToolSource(Protocol):
    """Something whose tools may change at any time, such as MCPServers."""

    @property
    def tools(self) -> Sequence[Tool]:
        """The tools offered at this moment."""


class ToolBox:
    """Offers tools to the model under unique names, and runs the calls it makes.

    Tools of different servers with the same name get the server's name in front. A tool keeps the name it
    was first offered under.

    Args:
        tools: Tools, functions decorated with `@tool`, or plain functions whose parameters have types.
        sources: Objects whose `tools` may change, such as `MCPServers`.
        limit: The most characters of a result; the rest is cut off.

    Raises:
        ToolError: Two of `tools` have the same name, or one of them cannot be a tool.
    """

    def __init__(
        self,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        sources: Iterable[ToolSource] = (),
        limit: int = MAX_RESULT_CHARACTERS,
    ):
        if not isinstance(tools, Iterable) or not isinstance(sources, Iterable):
            raise ToolError("tools and sources must be lists")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise ToolError(f"limit must be a number of characters, not {limit!r}")
        self._fixed = [tool if isinstance(tool, Tool) else function_tool(tool) for tool in tools]
        names = [tool.name for tool in self._fixed]
        if duplicates := sorted(name for name in names if names.count(name) > 1):
            raise ToolError(f"two tools have the name {duplicates[0]}; give one another with name=")
        self._sources, self._limit = list(sources), limit
        self._names: dict[str, str] = {}  # tool.key -> the name the model calls it by
        self._lock = threading.Lock()

    @property
    def tools(self) -> dict[str, Tool]:
        """The tools offered now, by the names the model calls them by."""
        offered = [*self._fixed, *(tool for source in self._sources for tool in source.tools)]
        with self._lock:
            self._assign_names(offered)
            return {self._names[tool.key]: tool for tool in offered}

    @property
    def names(self) -> frozenset[str]:
        """The names the model may call."""
        return frozenset(self.tools)

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        """Name -> JSON schema of the parameters. The parser converts the values of calls by it."""
        return {name: tool.parameters for name, tool in self.tools.items()}

    def definitions(self) -> list[dict[str, Any]]:
        """The tools as the chat template takes them."""
        return [tool.definition(name) for name, tool in self.tools.items()]

    def _assign_names(self, offered: Sequence[Tool]) -> None:
        """Name the tools that have no name yet. A name that several tools want gets the server in front."""
        plain_names = [_NOT_IN_NAMES.sub("_", tool.name) for tool in offered]
        for tool, name in zip(offered, plain_names, strict=True):
            if tool.key in self._names:
                continue
            taken = set(self._names.values())
            if tool.server and (plain_names.count(name) > 1 or name in taken):
                name = _NOT_IN_NAMES.sub("_", f"{tool.server}_{tool.name}")
            self._names[tool.key] = _unused(name, taken)

    def run(
        self,
        calls: Sequence[ToolCall],
        approve: Approve,
        *,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[ToolResult]:
        """`arun` on an event loop of its own, for callers that have none."""

        async def run() -> list[ToolResult]:
            asyncio.get_running_loop().set_task_factory(_contained_task)
            return await self.arun(calls, approve, is_cancelled=is_cancelled)

        return asyncio.run(run())

    async def arun(
        self,
        calls: Sequence[ToolCall],
        approve: Approve,
        *,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[ToolResult]:
        """Ask about each call in turn, then run the allowed ones concurrently.

        Args:
            calls: The calls of one model turn.
            approve: Asked about each call that can run. It may be async.
            is_cancelled: Polled while tools run. Once it is true, tools that still run are stopped.

        Returns:
            A result for each call, in the order of `calls`. The result of a call that the parser could not
            read, that was not allowed, or that was cancelled, says so.
        """
        tools = self.tools
        decisions = [await self._decide(tools, call, approve, is_cancelled) for call in calls]
        tasks = [
            asyncio.ensure_future(self._run_call(tools, call, decision))
            for call, decision in zip(calls, decisions, strict=True)
        ]
        try:
            while tasks and not is_cancelled():
                _, running = await asyncio.wait(tasks, timeout=_POLL_SECONDS)
                if not running:
                    break
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        return [_result(outcome, call) for outcome, call in zip(outcomes, calls, strict=True)]

    async def _decide(
        self, tools: dict[str, Tool], call: ToolCall, approve: Approve, is_cancelled: Callable[[], bool]
    ) -> Decision:
        """Whether a call may run, and what the model is told if it may not."""
        if call.arguments is None and call.error:
            return Decision(False, call.error)
        if call.name not in tools:
            return Decision(False, f'There is no tool "{call.name}".')
        if is_cancelled():
            return Decision(False, "Cancelled.")
        decision = approve(ApprovalRequest(tools[call.name], call.arguments or {}, tuple(tools.values())))
        return await decision if inspect.isawaitable(decision) else decision

    async def _run_call(self, tools: dict[str, Tool], call: ToolCall, decision: Decision) -> ToolResult:
        start, output = time.perf_counter(), ToolOutput(decision.reason, is_error=True)
        if decision.allowed:
            output = await _call(tools[call.name], call.arguments or {})
        text = without_surrogates(output.cut(self._limit).text)
        return ToolResult(call.index, call.name, text, output.is_error, time.perf_counter() - start)


async def _call(tool: Tool, arguments: dict[str, Any]) -> ToolOutput:
    """Call a tool of any class; an error output if it breaks its promise to return one."""
    try:
        output: object = await tool.call(arguments)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  the model is told whatever a tool raises
        return error_output(error)
    if isinstance(output, ToolOutput):
        return output
    return ToolOutput(f"{tool.name} returned no ToolOutput.", is_error=True)


def _contained_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """A task in which SystemExit, KeyboardInterrupt and GeneratorExit become RuntimeError.

    asyncio lets the first two end the event loop, and with it the program, when a tool's own task raises
    them. The third would close the coroutines that await the task.
    """

    async def run() -> Any:
        try:
            return await work
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            raise RuntimeError(error_output(error).text) from None

    task = asyncio.Task(run(), loop=loop, **options)
    task.add_done_callback(lambda _: work.close())  # it never began if the task was cancelled at once
    return task


def _unused(name: str, taken: set[str]) -> str:
    """`name`, with a number behind it if it is taken."""
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def _result(outcome: ToolResult | BaseException, call: ToolCall) -> ToolResult:
    if isinstance(outcome, ToolResult):
        return outcome
    if isinstance(outcome, asyncio.CancelledError):
        return ToolResult(call.index, call.name, "Cancelled by the user.", is_error=True, seconds=0.0)
    raise outcome
