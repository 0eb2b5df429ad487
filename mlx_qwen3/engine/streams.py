"""How a turn reaches whoever listens: a plain loop, an event loop, callbacks, or all at once.

A job's sink is called on the engine's thread; nothing here lets a listener run there.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mlx_qwen3.engine.job import Job, Sink
from mlx_qwen3.events import AnswerDelta, Done, Event, FinishReason, Stats, ThinkingDelta, ToolCall

Dispatch = Callable[[Callable[[], object]], object]


@dataclass(frozen=True)
class Reply:
    """A whole turn: what `Session.ask` returns.

    parsed: where a schema was given, the answer as what it describes: a pydantic model's instance, or the
    JSON's value; None if the turn ended before the answer was whole (`finish_reason` says why).
    """

    thinking: str
    answer: str
    stats: Stats
    tool_calls: list[ToolCall] = field(default_factory=list)
    parsed: Any = None

    @property
    def finish_reason(self) -> FinishReason:
        return self.stats.finish_reason


def listen(start: Callable[[Sink], Job]) -> Iterator[Any]:
    """Start a job and yield what it tells, on the thread that iterates, until it ends; raises its error.

    Leaving the loop early cancels the job and waits for it.
    """
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    job = start(inbox.put)
    try:
        while (item := inbox.get()) is not Job.END:
            yield _item_or_raise(item)
    finally:
        job.cancel()
        job.wait()


async def listen_async(events: Iterator[Event], stop: threading.Event) -> AsyncIterator[Event]:
    """Iterate over `events` on a thread of its own, and yield them on this event loop."""
    loop, inbox = asyncio.get_running_loop(), asyncio.Queue[Any]()
    _pump(events, lambda item: loop.call_soon_threadsafe(inbox.put_nowait, item), stop)
    while (item := await inbox.get()) is not Job.END:
        yield _item_or_raise(item)


def call_back(
    events: Iterator[Event],
    stop: threading.Event,
    on_event: Callable[[Event], object],
    on_error: Callable[[Exception], object] | None,
    dispatch: Dispatch | None,
) -> None:
    """Iterate over `events` on a thread of its own; `dispatch` brings each call where it belongs."""
    bring = dispatch or (lambda call: call())

    def sink(item: Any) -> None:
        if isinstance(item, Exception):
            if on_error is not None:
                bring(lambda: on_error(item))
        elif item is not Job.END:
            bring(lambda: on_event(item))

    _pump(events, sink, stop)


def collect(events: Iterator[Event]) -> Reply:
    """The whole turn, once it is over."""
    thinking, answer, seen = "", "", 0
    calls: list[ToolCall] = []
    for event in events:
        match event:
            case ThinkingDelta():
                thinking += event.text
            case AnswerDelta():
                # What is said before and after a call are paragraphs of one answer.
                answer += ("\n\n" if answer and len(calls) > seen else "") + event.text
                seen = len(calls)
            case ToolCall():
                calls.append(event)
            case Done():
                stats = event.stats
    return Reply(thinking, answer, stats, calls)


def ignore(item: object) -> None:
    """A sink for work that nobody listens to."""


def _pump(events: Iterator[Event], sink: Sink, stop: threading.Event) -> None:
    """Iterate over `events` on a thread of its own; `sink` gets them, then the error or the end."""

    def run() -> None:
        try:
            for event in events:
                sink(event)
        except Exception as error:  # noqa: BLE001  # whoever listens gets it
            end: object = error
        else:
            end = Job.END
        with suppress(Exception):  # whoever listened may have gone, with their event loop
            sink(end)
        stop.set()

    threading.Thread(target=run, name="mlx_qwen3 turn", daemon=True).start()


def _item_or_raise(item: Any) -> Any:
    if isinstance(item, BaseException):
        raise item
    return item
