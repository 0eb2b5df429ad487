"""Service: runs requests of every protocol on the engines, and delivers their events on the event loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from mlx_qwen3.engine.request import Job, PrefillRequest, TurnRequest, ignore
from mlx_qwen3.engine.tool_loop import assistant_message
from mlx_qwen3.errors import Qwen3Error
from mlx_qwen3.events import Done, Event, PromptProgress, ToolCall, ToolCallDelta
from mlx_qwen3.grammar import is_installed
from mlx_qwen3.parsing import CollectedOutput
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.errors import RequestError, as_request_error
from mlx_qwen3.server.models import ModelPool, ServedModel
from mlx_qwen3.server.monitoring.metrics import Metrics
from mlx_qwen3.server.prompts import Prompted, make_prompt, next_prefix
from mlx_qwen3.server.queue import Ticket
from mlx_qwen3.server.request import ServerRequest, Started
from mlx_qwen3.server.reuse.recall import KnownCall, Recall
from mlx_qwen3.server.reuse.sequences import AheadSequence, RequestCache, RequestSequence

# Seconds without a request after which a next one is prepared for, and after which caches are saved.
PREPARE_AFTER, SAVE_AFTER = 0.05, 20.0
# How long requests that were cut off may take to end: a pass of the model.
CUT_OFF_SECONDS = 5.0

Item = tuple[int, Event | BaseException | None]
"""An event of a choice, the error that ended it, or None for its end."""


class Service:
    """What the endpoints use. For the event loop's thread.

    Attributes:
        config: How the server is run.
        models: The models.
        metrics: Counts for /metrics.
        running: The requests that run or wait.
        is_stopping: Whether no new requests are taken.
    """

    def __init__(self, config: ServerConfig, models: ModelPool):
        self.config, self.models = config, models
        self.metrics = Metrics()
        self.recall = Recall()
        self.running: dict[str, Generation] = {}
        self.is_stopping = False
        self._background: set[asyncio.Task[None]] = set()

    async def start(self, request: ServerRequest) -> Generation:
        """Accept a request: its prompt is made and it has a place in the queue.

        Raises:
            RequestError: It cannot be used, or the queue is full.
        """
        self.refuse_if_stopping()
        arrived = time.perf_counter()
        model = await self._use(request.model)
        try:
            assert model.engine is not None and model.queue is not None  # noqa: PT018  # `use` loaded it
            model.queue.check(request.key, request.choices)
            prompted = await self._on_thread(
                make_prompt, model.engine, request, self.recall, self.config.thinking
            )
            self.refuse_if_stopping()
            generation = Generation(self, model, request, prompted, arrived)
            generation.enter()
        except BaseException as error:
            model.leave()
            if isinstance(error, Qwen3Error):
                raise as_request_error(error) from error
            raise
        return generation

    async def prompt_ids(self, request: ServerRequest) -> list[int]:
        """The ids of the prompt of a conversation. Raises RequestError."""
        model = await self._use(request.model)
        try:
            thinks = self.config.thinking
            prompted: Prompted = await self._on_thread(
                make_prompt, model.engine, request, self.recall, thinks
            )
            return list(prompted.turns[0].prompt_ids)
        finally:
            model.leave()

    async def count_tokens(self, request: ServerRequest) -> int:
        """Tokens of the prompt of a request. Raises RequestError."""
        return len(await self.prompt_ids(request))

    async def with_engine(
        self, name: str | None, function: Callable[..., Any], *arguments: Any
    ) -> tuple[str, Any]:
        """Run `function(engine, *arguments)` on a thread of its own: the model's name, and the result.

        Raises RequestError.
        """
        self.refuse_if_stopping()
        model = await self._use(name)
        try:
            return model.name, await self._on_thread(function, model.engine, *arguments)
        finally:
            model.leave()

    def refuse_if_stopping(self) -> None:
        """Raises RequestError (503) once the server is stopping."""
        if self.is_stopping:
            raise RequestError(503, "the server is stopping", code="stopping", retry_after=5)

    async def stop(self) -> None:
        """`end_requests`, then save caches and unload all models."""
        await self.end_requests()
        await self.models.close()

    async def end_requests(self) -> None:
        """Take no new requests, let those that run end for a while, and cut off the rest."""
        self.is_stopping = True
        deadline = time.monotonic() + self.config.stop_seconds
        while self.running and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for generation in list(self.running.values()):
            generation.cancel()
        while self.running and time.monotonic() < deadline + CUT_OFF_SECONDS:
            await asyncio.sleep(0.02)

    async def look_after(self) -> None:
        """What is done now and then: unload models, save caches while nothing runs."""
        await self.models.unload_idle()
        for model in self.models:
            engine, store = model.engine, model.store
            if engine is None or store is None or model.users:
                continue
            if time.monotonic() - model.used_at < SAVE_AFTER or not engine.scheduler.is_idle:
                continue
            with suppress(Qwen3Error):
                await asyncio.to_thread(engine.call, store.save_next)

    def prepare_next(self, model: ServedModel, prompted: Prompted, output: CollectedOutput, key: str) -> None:
        """Prefill, while nothing else runs, what the next request of a conversation begins with."""
        if not self.config.prepares or self.is_stopping:
            return
        task = asyncio.get_running_loop().create_task(self._prepare_next(model, prompted, output, key))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _prepare_next(
        self, model: ServedModel, prompted: Prompted, output: CollectedOutput, key: str
    ) -> None:
        engine, store, used_at = model.engine, model.store, model.used_at
        if engine is None or store is None:
            return
        await asyncio.sleep(PREPARE_AFTER)
        if model.users or model.used_at != used_at or model.engine is not engine:
            return  # there is something to do
        with suppress(Qwen3Error):  # the next request meets the same error, and reports it
            ids = await asyncio.to_thread(next_prefix, engine, prompted, assistant_message(output))
            if model.users or model.engine is not engine or len(ids) >= engine.context:
                return
            if model.ahead is not None:
                model.ahead.cancel()
            model.ahead = Job(ignore)
            cache = RequestCache(engine, store, key, begins_turn=False)
            engine.submit(AheadSequence(PrefillRequest(ids), cache, model.ahead))

    async def _use(self, name: str | None) -> ServedModel:
        try:
            model = await self.models.use(name)
        except Qwen3Error as error:
            raise as_request_error(error) from error
        if model.ahead is not None:  # it makes way, and leaves its cache to the request
            model.ahead.cancel()
        return model

    async def _on_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(function, *arguments)
        except Qwen3Error as error:
            raise as_request_error(error) from error


class Generation:
    """A running request; see `mlx_qwen3.server.request.Generation`."""

    def __init__(
        self, service: Service, model: ServedModel, request: ServerRequest, prompted: Prompted, arrived: float
    ):
        self.started = Started(
            uuid4().hex, model.name, int(time.time()), prompted.prompt_tokens, streams_calls=is_installed()
        )
        self.request, self.model, self.arrived = request, model, arrived
        self.prefilled: dict[int, PromptProgress] = {}
        """How far the prompt of each choice is."""
        self._service, self._prompted = service, prompted
        self._inbox = _Inbox(asyncio.get_running_loop(), self._on_item)
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
        self._service.running[self.started.id] = self
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
        deadline = self.arrived + self._service.config.limits.request_seconds
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
        )
        try:
            engine.submit(RequestSequence(engine, turn, cache, job))
        except Qwen3Error as error:
            job.finish(error)

    def _on_item(self, item: Item) -> None:
        """Called on the event loop for everything that comes, whether or not somebody iterates."""
        number, event = item
        if isinstance(event, PromptProgress):
            self.prefilled[number] = event
        elif isinstance(event, BaseException) or event is None:
            self._end(number)
        elif (output := self._outputs.get(number)) is not None:
            output.add(event)
            if isinstance(event, ToolCall):
                known = KnownCall(output.collected.thinking, output.arguments_of(event))
                self._service.recall.add(self.started.call_key(number, event.index), self.request.key, known)
            elif isinstance(event, Done):
                self._service.metrics.done(self.model.name, event.stats)
                self._done = event

    def _end(self, number: int) -> None:
        self._open -= 1
        ticket = self._tickets[number]
        began = self._began.get(number)
        ticket.release(None if began is None else time.perf_counter() - began)
        if self._open:
            return
        self._service.running.pop(self.started.id, None)
        self.model.leave()
        if self._is_cancelled or self.request.continue_final_message or len(self._prompted.turns) > 1:
            return
        is_whole = self._done is not None and self._done.finish_reason == "stop"
        if is_whole and self._prompted.messages is not None:
            output = self._outputs[number].collected
            self._service.prepare_next(self.model, self._prompted, output, self.request.key)


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


class _Inbox:
    """Carries items from engines' threads to the event loop, with one wake-up for many."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_item: Callable[[Item], None]):
        self._loop, self._on_item = loop, on_item
        self._arrived: deque[Item] = deque()
        self._items: list[Item] = []
        self._is_waking = False
        self._has_items = asyncio.Event()

    @property
    def is_empty(self) -> bool:
        return not (self._arrived or self._items)

    def put(self, item: Item) -> None:
        """From any thread."""
        self._arrived.append(item)
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon_threadsafe(self._drain)

    async def get(self, seconds: float) -> list[Item]:
        """The items since the last time; waits for one, or for so many seconds."""
        if not self._items:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, seconds)):
                    await self._has_items.wait()
        self._has_items.clear()
        items, self._items = self._items, []
        return items

    def _drain(self) -> None:
        self._is_waking = False  # what arrives from here on wakes the loop again
        while self._arrived:
            item = self._arrived.popleft()
            self._on_item(item)
            self._items.append(item)
        self._has_items.set()
