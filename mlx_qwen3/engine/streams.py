"""Delivers the events of a turn to the caller: as an iterator, an async iterator, callbacks, or one Reply."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mlx_qwen3.engine.request import Job, Sink
from mlx_qwen3.events import Done, Event, FinishReason, Logprobs, Stats, ToolCall
from mlx_qwen3.parsing import CollectedOutput

T = TypeVar("T")

Dispatch = Callable[[Callable[[], object]], object]
"""Runs a call on the thread it belongs to, such as PyObjC's `callAfter`."""


@dataclass(frozen=True)
class Reply(Generic[T]):
    """A whole turn.

    Attributes:
        thinking: The model's thinking.
        answer: The answer.
        stats: Figures of the turn.
        tool_calls: The calls the model made.
        parsed: Where a schema was given, the answer as a value: an instance of the pydantic model, or the
            JSON's value. None if the turn ended before the answer was complete; `finish_reason` says why.
        logprobs: Where `SamplingParams.logprobs` asks for them, those of each token generated.
    """

    thinking: str
    answer: str
    stats: Stats
    tool_calls: list[ToolCall] = field(default_factory=list)
    parsed: T = None  # type: ignore[assignment]  # None where there is no schema
    logprobs: list[Logprobs] = field(default_factory=list)

    @property
    def finish_reason(self) -> FinishReason:
        """Why the turn ended."""
        return self.stats.finish_reason


def iterate(start: Callable[[Sink], Job], on_late: Callable[[Any], object] | None = None) -> Iterator[Any]:
    """Start a job and yield its events on the thread that iterates; raises the job's error.

    Leaving the loop early cancels the job and waits for it. on_late: gets the events that come after that.
    """
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    job = start(inbox.put)
    try:
        while (item := inbox.get()) is not Job.END:
            yield _item_or_raise(item)
    finally:
        job.cancel()
        job.wait()
        while on_late is not None and not inbox.empty():
            item = inbox.get()
            if item is not Job.END and not isinstance(item, BaseException):
                on_late(item)


async def iterate_async(events: Iterator[Event], stop: threading.Event) -> AsyncIterator[Event]:
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
    """Iterate over `events` on a thread of its own; `dispatch` runs each call where it belongs.

    An exception in `on_event` ends the turn and goes to `on_error`.
    """
    run = dispatch or (lambda call: call())
    failed = threading.Event()

    def guarded(event: Event) -> None:
        if failed.is_set():
            return
        try:
            on_event(event)
        except Exception as error:  # the caller's own; the turn must not go on unheard
            failed.set()
            stop.set()
            if on_error is None:
                raise
            on_error(error)

    def sink(item: Any) -> None:
        if failed.is_set():
            raise _ListenerError
        if isinstance(item, Exception):
            if on_error is not None:
                run(lambda: on_error(item))
        elif item is not Job.END:
            run(lambda: guarded(item))

    _pump(events, sink, stop)


class _ListenerError(Exception):
    """The callbacks raised; nothing more is delivered."""


def collect(events: Iterator[Event]) -> Reply[Any]:
    """The whole turn, once it is over."""
    output = CollectedOutput()
    logprobs: list[Logprobs] = []
    stats: Stats | None = None
    for event in events:
        output.add(event)
        if isinstance(event, Logprobs):
            logprobs.append(event)
        elif isinstance(event, Done):
            stats = event.stats
    assert stats is not None  # Done comes last
    return Reply(output.thinking, output.answer, stats, output.tool_calls, logprobs=logprobs)


def _pump(events: Iterator[Event], sink: Sink, stop: threading.Event) -> None:
    """Iterate over `events` on a thread of its own; `sink` gets them, then the error or the end."""

    def run() -> None:
        end: object = Job.END
        try:
            for event in events:
                sink(event)
        except _ListenerError:
            pass
        except Exception as error:  # noqa: BLE001  # the listener gets it
            end = error
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                with suppress(Exception):
                    close()
        with suppress(Exception):  # the listener may be gone, with its event loop
            sink(end)
        stop.set()

    threading.Thread(target=run, name="mlx_qwen3 turn", daemon=True).start()


def _item_or_raise(item: Any) -> Any:
    if isinstance(item, BaseException):
        raise item
    return item
