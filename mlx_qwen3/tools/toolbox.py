"""The tools of a conversation, and the running of the calls the model makes."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from mlx_qwen3.events import ToolCall, ToolResult
from mlx_qwen3.tools.approval import ApprovalRequest, Decision
from mlx_qwen3.tools.base import MAX_RESULT_CHARACTERS, Tool, ToolError, ToolOutput
from mlx_qwen3.tools.function import tool as function_tool

Approve = Callable[[ApprovalRequest], Decision | Awaitable[Decision]]
OnStart = Callable[[ToolCall], None]
OnResult = Callable[[ToolResult], None]

_POLL_SECONDS = 0.05
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


class ToolSource(Protocol):
    """Whatever offers tools that may change, such as MCP servers."""

    @property
    def tools(self) -> Sequence[Tool]:
        """The tools offered at this moment."""


class ToolBox:
    """Tools by the names the model calls them by, and the running of calls.

    tools: tools, functions made tools by `@tool`, or plain typed functions. sources: what offers tools
    that change. limit: the most characters of a result.

    Equal names of several servers are told apart by the server's name in front; a name, once given,
    stays. Raises ToolError if two functions share a name.
    """

    def __init__(
        self,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        sources: Iterable[ToolSource] = (),
        limit: int = MAX_RESULT_CHARACTERS,
    ):
        own = [tool if isinstance(tool, Tool) else function_tool(tool) for tool in tools]
        names = [tool.name for tool in own]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ToolError(f"two tools have the name {sorted(twice)[0]}; give one another with name=")
        self._own, self._sources, self._limit = own, list(sources), limit
        self._names: dict[str, str] = {}  # tool.key -> the model's name for it

    @property
    def tools(self) -> dict[str, Tool]:
        """The tools offered now, by the model's name for them."""
        offered = [*self._own, *(tool for source in self._sources for tool in source.tools)]
        self._name(offered)
        return {self._names[tool.key]: tool for tool in offered}

    @property
    def names(self) -> frozenset[str]:
        """The names the model may call."""
        return frozenset(self.tools)

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        """Each tool's parameters, by the model's name for it: what the stream parser types values by."""
        return {name: tool.parameters for name, tool in self.tools.items()}

    def definitions(self) -> list[dict[str, Any]]:
        """What the chat template shows the model."""
        return [tool.definition(name) for name, tool in self.tools.items()]

    def _name(self, offered: Sequence[Tool]) -> None:
        """Name the tools that have no name yet. Plain names go to those who share them with nobody."""
        plain = [_UNSAFE.sub("_", tool.name) for tool in offered]
        for tool, name in zip(offered, plain, strict=True):
            taken = {given for key, given in self._names.items() if key != tool.key}
            if tool.key not in self._names:
                shared = tool.server and (plain.count(name) > 1 or name in taken)
                wanted = _UNSAFE.sub("_", f"{tool.server}_{tool.name}") if shared else name
                self._names[tool.key] = _unused(wanted, taken)

    def run(
        self,
        calls: Sequence[ToolCall],
        approve: Approve,
        *,
        on_start: OnStart | None = None,
        on_result: OnResult | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[ToolResult]:
        """`arun` for callers without an event loop; everything but the tools runs on this thread."""
        return asyncio.run(
            self.arun(calls, approve, on_start=on_start, on_result=on_result, is_cancelled=is_cancelled)
        )

    async def arun(
        self,
        calls: Sequence[ToolCall],
        approve: Approve,
        *,
        on_start: OnStart | None = None,
        on_result: OnResult | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[ToolResult]:
        """Ask for each call in turn, run those allowed side by side, return the results in order.

        approve: asked for each call that can run; may be async. on_start, on_result: told of each call
        as it begins and ends. is_cancelled: looked at all along; what still runs then is stopped.
        Calls the parser could not read, or nobody allowed, give results that say so.
        """
        tools = self.tools
        decisions = [await self._decide(tools, call, approve, is_cancelled) for call in calls]
        work = [
            asyncio.ensure_future(self._run_one(tools, call, decision, on_start, on_result))
            for call, decision in zip(calls, decisions, strict=True)
        ]
        try:
            while work and not is_cancelled():
                _, waiting = await asyncio.wait(work, timeout=_POLL_SECONDS)
                if not waiting:
                    break
        finally:
            for task in work:
                task.cancel()
            ended = await asyncio.gather(*work, return_exceptions=True)
        return [_result_of(end, call) for end, call in zip(ended, calls, strict=True)]

    async def _decide(
        self, tools: dict[str, Tool], call: ToolCall, approve: Approve, is_cancelled: Callable[[], bool]
    ) -> Decision:
        """Whether a call may run; the reason is what the model is told if it may not."""
        if call.arguments is None:
            return Decision(False, call.error or "The call could not be read.")
        if call.name not in tools:
            return Decision(False, f'There is no tool "{call.name}".')
        if is_cancelled():
            return Decision(False, "Cancelled.")
        request = ApprovalRequest(tools[call.name], call.arguments, tuple(tools.values()))
        answer = approve(request)
        return await answer if inspect.isawaitable(answer) else answer

    async def _run_one(
        self,
        tools: dict[str, Tool],
        call: ToolCall,
        decision: Decision,
        on_start: OnStart | None,
        on_result: OnResult | None,
    ) -> ToolResult:
        begin, output = time.perf_counter(), ToolOutput(decision.reason, is_error=True)
        if decision.allowed and call.arguments is not None:
            if on_start:
                on_start(call)
            output = await tools[call.name].call(call.arguments)
        output = output.cut(self._limit)
        seconds = time.perf_counter() - begin
        result = ToolResult(call.index, call.name, output.text, output.is_error, seconds)
        if on_result:
            on_result(result)
        return result


def _unused(wanted: str, taken: set[str]) -> str:
    names = [wanted, *(f"{wanted}_{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def _result_of(end: ToolResult | BaseException, call: ToolCall) -> ToolResult:
    if isinstance(end, ToolResult):
        return end
    if isinstance(end, asyncio.CancelledError):
        return ToolResult(call.index, call.name, "Cancelled by the user.", is_error=True, seconds=0.0)
    raise end
