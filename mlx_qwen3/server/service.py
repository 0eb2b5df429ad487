"""Service: runs requests of every protocol on the engines, and delivers their events on the event loop."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

from mlx_qwen3.engine.engine import Engine
from mlx_qwen3.engine.request import Job, PrefillRequest, ignore
from mlx_qwen3.engine.tool_loop import assistant_message
from mlx_qwen3.errors import EngineError, InsufficientMemoryError, Qwen3Error
from mlx_qwen3.parsing import CollectedOutput
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.errors import RequestError, as_request_error, bad_request
from mlx_qwen3.server.generation.inbox import Courier
from mlx_qwen3.server.generation.prompts import Prompted, make_prompt, next_prefix
from mlx_qwen3.server.generation.running import Generation
from mlx_qwen3.server.models import ModelPool, ServedModel
from mlx_qwen3.server.monitoring.metrics import Metrics
from mlx_qwen3.server.request import ServerRequest
from mlx_qwen3.server.reuse.recall import Recall
from mlx_qwen3.server.reuse.sequences import AheadSequence, RequestCache

log = logging.getLogger("mlx_qwen3.server")

# Seconds without a request after which a next one is prepared for, and after which caches are saved.
PREPARE_AFTER, SAVE_AFTER = 0.05, 20.0
# How long requests that were cut off may take to end: a pass of the model.
CUT_OFF_SECONDS = 5.0


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

    @cached_property
    def courier(self) -> Courier:
        """Brings the events of engines to this event loop."""
        return Courier(asyncio.get_running_loop())

    async def start(self, request: ServerRequest) -> Generation:
        """Accept a request: its prompt is made and it has a place in the queue.

        Raises:
            RequestError: It cannot be used, or the queue is full.
        """
        self.refuse_if_stopping()
        arrived = time.perf_counter()
        if self.config.log_prompts:
            said = request.messages if request.messages is not None else request.prompts
            log.info("%s asks: %s", request.key or "a client", json.dumps(said, ensure_ascii=False))
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
            return model.name, await self._on_thread(_run, function, model.engine, *arguments)
        finally:
            model.leave()

    async def in_turn(
        self, name: str | None, key: str, function: Callable[..., Any], *arguments: Any
    ) -> tuple[str, Any]:
        """`with_engine`, once it is the turn of `key` in the queue of the model. Raises RequestError."""
        self.refuse_if_stopping()
        model = await self._use(name)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            assert model.queue is not None  # `_use` loaded the model
            model.queue.check(key)
            ticket = model.queue.enter(key, lambda: _set(turn))
            try:
                await turn
                return model.name, await self._on_thread(_run, function, model.engine, *arguments)
            finally:
                ticket.release()
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
        for model in self.models.loadable:
            engine, store = model.engine, model.store
            if engine is None or store is None or model.users:
                continue
            if time.monotonic() - model.parts.used_at < SAVE_AFTER or not engine.scheduler.is_idle:
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
        engine, store, used_at = model.engine, model.store, model.parts.used_at
        if engine is None or store is None:
            return
        await asyncio.sleep(PREPARE_AFTER)
        if model.users or model.parts.used_at != used_at or model.engine is not engine:
            return  # there is something to do
        with suppress(Qwen3Error):  # the next request meets the same error, and reports it
            ids = await asyncio.to_thread(next_prefix, engine, prompted, assistant_message(output))
            if model.users or model.engine is not engine or len(ids) >= engine.context:
                return
            if model.parts.ahead is not None:
                model.parts.ahead.cancel()
            model.parts.ahead = Job(ignore)
            cache = RequestCache(engine, store, key, begins_turn=False, adapter=model.adapter)
            engine.submit(AheadSequence(PrefillRequest(ids), cache, model.parts.ahead))

    async def _use(self, name: str | None) -> ServedModel:
        try:
            model = await self.models.use(name)
        except InsufficientMemoryError as error:
            raise as_request_error(error) from error
        except Qwen3Error as error:  # it may name folders of this machine
            log.error("%s cannot be loaded: %s", self.models.find(name).name, error)
            problem = f"{self.models.find(name).name} cannot be loaded; the server's log says why"
            raise RequestError(503, problem, param="model", code="model_unavailable") from error
        if model.parts.ahead is not None:  # it makes way, and leaves its cache to the request
            model.parts.ahead.cancel()
        return model

    async def _on_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(function, *arguments)
        except Qwen3Error as error:
            raise as_request_error(error) from error


def _set(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def _run(function: Callable[..., Any], engine: Engine, *arguments: Any) -> Any:
    """Call `function`. What the model of a healthy engine cannot do is the request's fault."""
    try:
        return function(engine, *arguments)
    except EngineError as error:
        if engine.failure is None:
            raise bad_request(str(error), "model") from error
        raise
