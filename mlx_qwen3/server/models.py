"""ModelPool: the models that the server has, loaded when they are asked for and unloaded when they are not.

Names of requests are looked up in a table made at the start; they never become a path or a download.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mlx_qwen3.checkpoint.catalog import FAMILY
from mlx_qwen3.checkpoint.locate import PACKAGED
from mlx_qwen3.engine.engine import Engine
from mlx_qwen3.engine.request import Job
from mlx_qwen3.errors import ConfigError, EngineError, InsufficientMemoryError, Qwen3Error
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.queue import FairQueue
from mlx_qwen3.server.reuse.disk import DiskTier
from mlx_qwen3.server.reuse.prefixes import PrefixStore

# Requests handed to an engine beyond those it runs at once, so that the next is there when one ends.
SUBMITTED_AHEAD = 2
# Names that clients have built in. They mean: the model there is.
BUILT_IN = re.compile(
    r"(claude|gpt|chatgpt|o[134]|codex|text-davinci|gemini|default)([-.:@/].*|\d.*)?", re.IGNORECASE
)

OpenEngine = Callable[..., Engine]


class LoadedParts:
    """What is loaded of a model: once, also where several names share it."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.store: PrefixStore | None = None
        self.queue: FairQueue | None = None
        self.ahead: Job | None = None
        """The background job that prepares a next request."""
        self.used_at = time.monotonic()
        self.users = 0
        self.loading = asyncio.Lock()


class ServedModel:
    """One model of the server, or a model with an adapter. For the event loop's thread.

    Attributes:
        base: The model that the adapter is for, whose weights it shares; None for a model.
        adapter: The adapter's name in the engine of `base`; None for a model.
        parts: What is loaded. Those of `base`, for an adapter.
    """

    def __init__(self, name: str, source: str, is_pinned: bool, base: ServedModel | None = None):
        """source: a model, or the folder of the adapter."""
        self.name, self.source, self.is_pinned, self.base = name, source, is_pinned, base
        self.adapter = None if base is None else name
        self.parts: LoadedParts = LoadedParts() if base is None else base.parts
        self.created = int(time.time())

    @property
    def engine(self) -> Engine | None:
        return self.parts.engine

    @property
    def store(self) -> PrefixStore | None:
        return self.parts.store

    @property
    def queue(self) -> FairQueue | None:
        return self.parts.queue

    @property
    def users(self) -> int:
        """Requests that use the model now, with any adapter."""
        return self.parts.users

    @property
    def is_loaded(self) -> bool:
        engine = self.engine
        return engine is not None and (self.adapter is None or self.adapter in engine.adapters)

    def leave(self) -> None:
        """A request that used the model has ended."""
        self.parts.users -= 1
        self.parts.used_at = time.monotonic()


class ModelPool:
    """The models by name. open_engine: loads one, on a thread of its own."""

    def __init__(self, config: ServerConfig, open_engine: OpenEngine = Engine):
        self._config, self._open_engine = config, open_engine
        self._models: dict[str, ServedModel] = {}
        self._names: dict[str, ServedModel] = {}
        for source in config.models:
            self._add(served_name(source), source)
        for name, folder in config.adapters.items():
            self._add(name, folder, self.default)
        for alias, name in config.aliases.items():
            if name.lower() not in self._names:
                raise ConfigError(f"the alias {alias} names {name}, which is none of the server's models")
            self._names[alias.lower()] = self._names[name.lower()]

    def _add(self, name: str, source: str, base: ServedModel | None = None) -> None:
        if name in self._models:
            raise ConfigError(f"two models have the name {name}; rename a folder or leave one out")
        is_pinned = name in self._config.pinned or (base is None and source in self._config.pinned)
        model = self._models[name] = ServedModel(name, source, is_pinned, base)
        if base is None:
            spellings = list(_spellings(name, source))
        else:
            spellings = [name.lower()]
            spellings += [f"{each}:{name.lower()}" for each in _spellings(base.name, base.source)]
        for spelling in spellings:
            self._names.setdefault(spelling, model)

    def __iter__(self) -> Iterator[ServedModel]:
        yield from self._models.values()

    @property
    def loadable(self) -> list[ServedModel]:
        """The models without those that are another one with an adapter."""
        return [model for model in self if model.base is None]

    @property
    def default(self) -> ServedModel:
        return next(iter(self._models.values()))

    @property
    def aliases(self) -> dict[str, str]:
        return dict(self._config.aliases)

    def find(self, name: str | None) -> ServedModel:
        """The model of that name. Raises RequestError (404)."""
        if not name or (found := self._names.get(name.lower())) is None:
            if not name or BUILT_IN.fullmatch(name):
                return self.default
            known = ", ".join([*self._models, *self._config.aliases])
            raise RequestError(
                404,
                f"there is no model {name!r:.80}; there are {known}",
                param="model",
                code="model_not_found",
            )
        return found

    async def use(self, name: str | None) -> ServedModel:
        """The model of that name, loaded; `leave` it. Raises RequestError, and what loading raises."""
        model = self.find(name)
        model.parts.users += 1
        try:
            async with model.parts.loading:
                if model.engine is None:
                    await self._load(model.base or model)
                if not model.is_loaded:
                    assert model.engine is not None  # it was loaded just now
                    await asyncio.to_thread(model.engine.load_adapter, model.source, model.name)
        except BaseException:
            model.leave()
            raise
        return model

    async def preload(self) -> None:
        """Load the default model, and those that are pinned."""
        for model in self:
            if model is self.default or model.is_pinned:
                (await self.use(model.name)).leave()

    async def unload_idle(self) -> None:
        """Unload models that were not used for as long as they are kept."""
        keep = self._config.unload_after
        for model in self.loadable if keep is not None else []:
            assert keep is not None
            if self._may_unload(model) and time.monotonic() - model.parts.used_at > keep:
                await self._unload(model)

    async def close(self) -> None:
        """Save caches and close all engines."""
        for model in self.loadable:
            await self._unload(model)

    def failure(self) -> str | None:
        """Why a loaded model cannot run any more; None if all can."""
        failures = (model.engine.failure for model in self if model.engine is not None)
        return next((failure for failure in failures if failure is not None), None)

    async def _load(self, model: ServedModel) -> None:
        while sum(each.is_loaded for each in self.loadable) >= self._config.most_models:
            if not await self._unload_oldest():
                break
        options = dict(self._config.engine)
        if options.get("distributed"):  # all machines read them as they load the model, and never later
            options["adapters"] = {each.name: each.source for each in self if each.base is model}
        while True:
            try:
                engine = await asyncio.to_thread(self._open_engine, model.source, **options)
                break
            except InsufficientMemoryError:
                if not await self._unload_oldest():
                    raise
        model.parts.engine = engine
        model.parts.store = await asyncio.to_thread(engine.call, lambda: self._new_store(engine))
        limits = self._config.limits
        slots = engine.scheduler.size + SUBMITTED_AHEAD
        model.parts.queue = FairQueue(slots, limits.waiting, limits.waiting_of_one)

    def _new_store(self, engine: Engine) -> PrefixStore:
        """The store of an engine's caches. On its thread."""
        disk = None
        if self._config.cache_folder is not None:
            folder = self._config.cache_folder / _folder_name(engine)
            disk = DiskTier(engine, folder, self._config.cache_limit, self._config.least_saved_tokens)
        store = PrefixStore(engine, engine.prefixes.limit, disk)
        engine.prefixes = store
        return store

    def _may_unload(self, model: ServedModel) -> bool:
        is_pinned = any(each.is_pinned for each in self if each.parts is model.parts)
        return model.is_loaded and not model.users and not is_pinned

    async def _unload_oldest(self) -> bool:
        """Unload the idle model that was used longest ago. Returns whether there was one."""
        idle = [model for model in self.loadable if self._may_unload(model)]
        if not idle:
            return False
        await self._unload(min(idle, key=lambda model: model.parts.used_at))
        return True

    async def _unload(self, model: ServedModel) -> None:
        parts, engine, store = model.parts, model.engine, model.store
        if engine is None:
            return
        parts.engine = parts.store = parts.queue = None
        if parts.ahead is not None:
            parts.ahead.cancel()
            await asyncio.to_thread(parts.ahead.wait)  # it gives its cache back
            parts.ahead = None
        if store is not None:
            with suppress(EngineError, Qwen3Error):
                await asyncio.to_thread(engine.call, store.release)
        await asyncio.to_thread(engine.close)


def served_name(source: str) -> str:
    """What clients call a model: no path of this machine."""
    if source not in PACKAGED and source.lower() not in FAMILY and Path(source).expanduser().is_dir():
        return Path(source).expanduser().resolve().name
    return source


def _spellings(name: str, source: str) -> Iterator[str]:
    """The names under which a model is found, in lower case."""
    yield name.lower()
    if member := FAMILY.get(source.lower()):
        yield member.repository.lower()
        yield member.repository.split("/")[-1].lower()
        yield f"qwen3-{member.name}"
        yield f"qwen3:{member.name}"
    elif "/" in name:
        yield name.split("/")[-1].lower()


def _folder_name(engine: Any) -> str:
    made_of = repr(sorted(engine.fingerprint(engine.config).items()))
    return blake2b(made_of.encode(), digest_size=12).hexdigest()
