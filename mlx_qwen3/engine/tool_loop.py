"""The tool loop: run the tools that a model turn called, and continue with their results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

from mlx_qwen3.events import Done, Event, Stats, ToolCall, ToolResult
from mlx_qwen3.parsing import CollectedOutput
from mlx_qwen3.tokenizer.messages import without_surrogates
from mlx_qwen3.tools.approval import ApprovalRequest, Decision
from mlx_qwen3.tools.toolbox import Approve, ToolBox

# How often a model may repeat a call that it cannot spell.
MOST_BROKEN_STEPS = 2

Message = dict[str, Any]


@dataclass(frozen=True)
class ToolLoopOptions:
    """toolbox: the tools offered. approve: asked before each call. max_steps: rounds of calls in a turn."""

    toolbox: ToolBox
    approve: Approve
    max_steps: int


def allow_own(request: ApprovalRequest) -> Decision:
    """Allow the program's own functions, and no tool of an MCP server."""
    return Decision(request.tool.server is None, "There was no one to allow this tool call.")


def run_tool_loop(
    run_turn: Callable[[], Iterator[Event]],
    add_results: Callable[[Sequence[ToolResult]], None],
    options: ToolLoopOptions,
    is_cancelled: Callable[[], bool],
) -> Iterator[Event]:
    """Run model turns and the tools they call, until the model answers, is cancelled, or has had its steps.

    run_turn: runs one model turn. add_results: adds results to the conversation before the next one. One
    Done comes last, with the figures of all turns.
    """
    figures: list[Stats] = []
    broken = 0
    for step in range(options.max_steps + 1):
        calls: list[ToolCall] = []
        for event in run_turn():
            if isinstance(event, Done):
                done = event
            else:
                if isinstance(event, ToolCall):
                    calls.append(event)
                yield event
        figures.append(done.stats)
        broken = broken + 1 if calls and all(call.arguments is None for call in calls) else 0
        if done.finish_reason != "tool_calls" or step == options.max_steps or broken > MOST_BROKEN_STEPS:
            break
        results = run_calls(calls, options, is_cancelled)
        add_results(results)
        yield from results
        if is_cancelled():
            figures[-1] = replace(done.stats, finish_reason="cancelled")
            break
    yield Done(reduce(add_stats, figures))


def run_calls(
    calls: Sequence[ToolCall], options: ToolLoopOptions, is_cancelled: Callable[[], bool]
) -> list[ToolResult]:
    """Run `calls` on this thread, or on another one where this one runs an event loop, as in a notebook."""
    run = partial(options.toolbox.run, calls, options.approve, is_cancelled=is_cancelled)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def add_stats(first: Stats, second: Stats) -> Stats:
    """The figures of two model turns as one: counts of both, speed and finish reason of the later."""
    return replace(
        second,
        thinking_tokens=first.thinking_tokens + second.thinking_tokens,
        answer_tokens=first.answer_tokens + second.answer_tokens,
        generated_tokens=first.generated_tokens + second.generated_tokens,
        ttft=first.ttft,
        queue_time=first.queue_time,
        batch_size=max(first.batch_size, second.batch_size),
        peak_memory=max(first.peak_memory, second.peak_memory),
    )


def assistant_message(output: CollectedOutput) -> Message:
    """The message of a model turn, as the chat template takes it.

    A call that could not be read has no arguments to show, so it stays text.
    """
    unread = [call.raw for call in output.tool_calls if call.arguments is None]
    message: Message = {
        "role": "assistant",
        "content": "\n".join([part for part in (output.answer, *unread) if part]),
        "reasoning_content": output.thinking,
    }
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in output.tool_calls
        if call.arguments is not None
    ]
    return {**message, "tool_calls": calls} if calls else message


def result_messages(results: Sequence[ToolResult]) -> list[Message]:
    """The messages of tool results, as the chat template takes them."""
    return [
        {"role": "tool", "name": result.name, "content": without_surrogates(result.text)}
        for result in results
    ]
