"""From one model turn to the next: run the tools that were called, give back what they returned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

from mlx_qwen3.engine.turn import Turn
from mlx_qwen3.events import Done, Event, Stats, ToolCall, ToolResult
from mlx_qwen3.tools.approval import ApprovalRequest, Decision
from mlx_qwen3.tools.toolbox import Approve, ToolBox

# A model that cannot spell a call is told why, and may try again this often.
MOST_BROKEN_STEPS = 2

Message = dict[str, Any]


@dataclass(frozen=True)
class AgentOptions:
    """toolbox: the tools offered. approve: asked before each call. max_steps: rounds of calls in a turn."""

    toolbox: ToolBox
    approve: Approve
    max_steps: int


def allow_own(request: ApprovalRequest) -> Decision:
    """Allows the functions that the program itself offers, and nothing that a server brought."""
    return Decision(request.tool.server is None, "Nobody was there to allow this tool call.")


def run_agent(
    play: Callable[[], Iterator[Event]],
    answer_calls: Callable[[Sequence[ToolResult]], None],
    options: AgentOptions,
    is_cancelled: Callable[[], bool],
) -> Iterator[Event]:
    """Let the model speak and run what it calls, until it answers, is cancelled, or has had its steps.

    play: runs one model turn. answer_calls: puts results into the conversation before the next. The
    Done that comes last speaks for all of them.
    """
    figures: list[Stats] = []
    broken = 0
    for step in range(options.max_steps + 1):
        calls: list[ToolCall] = []
        for event in play():
            if isinstance(event, Done):
                done = event
            else:
                calls += [event] if isinstance(event, ToolCall) else []
                yield event
        figures.append(done.stats)
        broken = broken + 1 if calls and all(call.arguments is None for call in calls) else 0
        if done.finish_reason != "tool_calls" or step == options.max_steps or broken > MOST_BROKEN_STEPS:
            break
        results = run_calls(calls, options, is_cancelled)
        answer_calls(results)
        yield from results
        if is_cancelled():
            figures[-1] = replace(done.stats, finish_reason="cancelled")
            break
    yield Done(reduce(add_stats, figures))


def run_calls(
    calls: Sequence[ToolCall], options: AgentOptions, is_cancelled: Callable[[], bool]
) -> list[ToolResult]:
    """Run `calls` on this thread; where an event loop already runs on it, as in a notebook, on another."""
    run = partial(options.toolbox.run, calls, options.approve, is_cancelled=is_cancelled)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def add_stats(first: Stats, second: Stats) -> Stats:
    """The figures of two model turns that make one: counts of both, speed and ending of the later."""
    return replace(
        second,
        thinking_tokens=first.thinking_tokens + second.thinking_tokens,
        answer_tokens=first.answer_tokens + second.answer_tokens,
        ttft=first.ttft,
        peak_memory=max(first.peak_memory, second.peak_memory),
    )


def assistant_message(turn: Turn) -> Message:
    """What the model said, as the chat template takes it.

    A call that could not be read has no arguments to show, so it stays what it was: text.
    """
    unread = [call.raw for call in turn.tool_calls if call.arguments is None]
    message: Message = {
        "role": "assistant",
        "content": "\n".join([part for part in (turn.answer, *unread) if part]),
        "reasoning_content": turn.thinking,
    }
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in turn.tool_calls
        if call.arguments is not None
    ]
    return {**message, "tool_calls": calls} if calls else message


def result_messages(results: Sequence[ToolResult]) -> list[Message]:
    """What the tools returned, as the chat template takes it."""
    return [{"role": "tool", "name": result.name, "content": result.text} for result in results]
