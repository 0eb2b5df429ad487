"""Generation: a request that was accepted, from its place in the queue to its last event."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol
from uuid import uuid4

from mlx_qwen3.engine.request import Job, TurnRequest
from mlx_qwen3.errors import Qwen3Error
from mlx_qwen3.events import Done, Event, PromptProgress, ToolCall, ToolCallDelta
from mlx_qwen3.grammar import is_installed
from mlx_qwen3.parsing import CollectedOutput
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.errors import RequestError, as_request_error
from mlx_qwen3.server.generation.inbox import Courier, Inbox, Item
from mlx_qwen3.server.generation.prompts import Prompted
from mlx_qwen3.server.models import ServedModel
from mlx_qwen3.server.monitoring.metrics import Metrics
from mlx_qwen3.server.queue import Ticket
from mlx_qwen3.server.request import ServerRequest, Started
from mlx_qwen3.server.reuse.recall import KnownCall, Recall
from mlx_qwen3.server.reuse.sequences import RequestCache, RequestSequence


class Host(Protocol):
    """What a generation needs of the service."""

    config: ServerConfig
    metrics: Metrics
    recall: Recall
    running: dict[str, Generation]

    @property
    def courier(self) -> Courier:
        """Brings the events of engines."""

    def prepare_next(self, model: ServedModel, prompted: Prompted, output: CollectedOutput, key: str) -> None:
        """A conversation's answer is whole; its next request may be prepared for."""


class Generation:
    """A running request; see `mlx_qwen3.server.request.Generation`."""

    def __init__(
        self, host: Host, model: ServedModel, request: ServerRequest, prompted: Prompted, arrived: float
    ):
        self.started = Started(
            uuid4().hex, model.name, int(time.time()), prompted.prompt_tokens, streams_calls=is_installed()
        )
        self.request, self.model, self.arrived = request, model, arrived
        self.prefilled: dict[int, PromptProgress] = {}
        """How far the prompt of each choice is."""
        self._host, self._prompted = host, prompted
        self._inbox = Inbox(host.courier, self._on_item)
        self._jobs: dict[int, Job] = {}
        self._tickets: dict[int, Ticket] = {}
        self._began: dict[int, float] = {}
        self._outputs: dict[int, _Recorder] = {}
        self._open = len(prompted.turns)
        self._is_cancelled = False
        self._done: Done | None = None  # of the choice that ended last

    @property
    def generated(self) -> int:
        """Tokens generated so far, of all choices."""
        return sum(job.generated for job in list(self._jobs.values()))

    @property
    def state(self) -> str:
        """What it is doing: waiting, prefill or decode."""
        if not self._jobs:
            return "waiting"
        return "decode" if self.generated else "prefill"

    def enter(self) -> None:
        """Queue up. Raises RequestError (429) if the queue is full."""
        queue = self.model.queue
        assert queue is not None
        queue.check(self.request.key, self._open)
        self._host.running[self.started.id] = self
        for number, turn in enumerate(self._prompted.turns):
            ticket = queue.enter(self.request.key, self._submitter(number, turn))
            self._tickets[number] = ticket
            if ticket.is_running and number not in self._jobs:
                self._submit(number, turn)

    def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        return self._events()

    async def batches(self, idle: float | None = None) -> AsyncIterator[list[tuple[int, Event]]]:
        """The events that came since the last time, as lists; an empty one after `idle` seconds without any.

        Raises RequestError if the generation fails.
        """
        deadline = self.arrived + self._host.config.limits.request_seconds
        try:
            while self._open or not self._inbox.is_empty:
                left = deadline - time.perf_counter()
                items = await self._inbox.get(left if idle is None else min(left, idle))
                if not items and time.perf_counter() >= deadline:
                    raise RequestError(504, "the request took longer than the server allows", code="timeout")
                events: list[tuple[int, Event]] = []
                for number, item in items:
                    if isinstance(item, BaseException):
                        raise as_request_error(item)
                    if item is not None:
                        events.append((number, item))
                if events or not items:
                    yield events
        finally:
            self.cancel()

    async def _events(self) -> AsyncIterator[tuple[int, Event]]:
        async for events in self.batches():
            for event in events:
                yield event

    def cancel(self) -> None:
        """Stop what still runs or waits. What was prefilled is kept."""
        if self._is_cancelled:
            return
        self._is_cancelled = True
        for job in self._jobs.values():
            job.cancel()
        for number, ticket in list(self._tickets.items()):
            if number not in self._jobs and not ticket.is_over:
                ticket.release()
                self._inbox.put((number, None))

    async def aclose(self) -> None:
        """`cancel`, for those who iterate."""
        self.cancel()

    def _submitter(self, number: int, turn: TurnRequest) -> Callable[[], None]:
        def submit() -> None:
            if number in self._tickets:  # else `enter` submits, once it has the ticket
                self._submit(number, turn)

        return submit

    def _submit(self, number: int, turn: TurnRequest) -> None:
        engine, store = self.model.engine, self.model.store
        assert engine is not None and store is not None  # noqa: PT018  # the model is in use
        self._began[number] = time.perf_counter()
        self._outputs[number] = _Recorder()
        job = Job(lambda item: self._inbox.put((number, None if item is Job.END else item)))
        self._jobs[number] = job
        cache = RequestCache(
            engine,
            store,
            self.request.key,
            begins_turn=self._prompted.begins_turn,
            is_kept=number % self.request.n == 0,
            adapter=self.model.adapter,
        )
        try:
            engine.submit(RequestSequence(engine, turn, cache, job))
        except Qwen3Error as error:
            job.finish(error)

    def _on_item(self, item: Item) -> None:
        """Called on the event loop for everything that comes, also when the events are not read."""
        number, event = item
        if isinstance(event, PromptProgress):
            self.prefilled[number] = event
        elif isinstance(event, BaseException) or event is None:
            self._end(number)
        elif (output := self._outputs.get(number)) is not None:
            output.add(event)
            if isinstance(event, ToolCall):
                known = KnownCall(output.collected.thinking, output.arguments_of(event))
                self._host.recall.add(self.started.call_key(number, event.index), self.request.key, known)
            elif isinstance(event, Done):
                self._host.metrics.done(self.model.name, event.stats)
                self._done = event

    def _end(self, number: int) -> None:
        self._open -= 1
        ticket = self._tickets[number]
        began = self._began.get(number)
        ticket.release(None if began is None else time.perf_counter() - began)
        if self._open:
            return
        self._host.running.pop(self.started.id, None)
        self.model.leave()
        if self._is_cancelled or self.request.continue_final_message or len(self._prompted.turns) > 1:
            return
        is_whole = self._done is not None and self._done.finish_reason == "stop"
        if is_whole and self._prompted.messages is not None:
            output = self._outputs[number].collected
            self._host.prepare_next(self.model, self._prompted, output, self.request.key)


class _Recorder:
    """The output of one choice so far, and the arguments of its calls as they were spelled."""

    def __init__(self) -> None:
        self.collected = CollectedOutput()
        self._arguments: dict[int, list[str]] = {}

    def add(self, event: Event) -> None:
        self.collected.add(event)
        if isinstance(event, ToolCallDelta):
            self._arguments.setdefault(event.index, []).append(event.text)

    def arguments_of(self, call: ToolCall) -> str | None:
        return "".join(self._arguments.get(call.index, [])) or None
