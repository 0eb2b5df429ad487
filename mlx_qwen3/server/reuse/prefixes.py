"""PrefixStore: KV caches of ended requests, for requests whose prompts begin alike. For the engine's thread.

A request over HTTP brings its whole conversation. What the store holds of it need not be prefilled. The cache
of the conversation that the request continues is handed over; where a prompt only begins like another, it
gets a copy of that beginning. Caches used longest ago are dropped beyond the memory limit, to disk if there
is a folder for them.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_qwen3.cache.prefix_pool import MIN_SHARED_TOKENS, PrefixPool
from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.errors import CacheError
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.server.reuse.disk import DiskTier, SavedPrefix

# Caches kept in memory at most: each is compared with every prompt that comes.
MOST_IDLE = 128


@dataclass
class Held:
    """A KV cache, and what it is good for.

    Attributes:
        scope: Whose it is: requests of another scope never see it.
        config: The model's config with the scaling of positions that the cache was filled with.
        anchor: Tokens that a request which continues this conversation is sure to begin with.
        saved: Its file, if it was saved as it is.
    """

    cache: PromptCache
    scope: str
    config: ModelConfig
    anchor: int = 0
    saved: SavedPrefix | None = None

    def is_continued(self, shared: int) -> bool:
        """Whether a prompt that shares so many tokens goes on from here, and does not only begin alike."""
        return shared >= min(self.anchor, len(self.cache.ids)) > 0

    def matches(self, scope: str, config: ModelConfig) -> bool:
        return self.scope == scope and self.config.rope_scaling == config.rope_scaling


@dataclass(frozen=True)
class PrefixStats:
    """What a store holds and did."""

    caches: int = 0
    tokens: int = 0
    nbytes: int = 0
    saved: int = 0
    saved_nbytes: int = 0
    continued: int = 0
    copied: int = 0
    loaded: int = 0
    missed: int = 0


class PrefixStore(PrefixPool):
    """The caches of one engine, in the place of its pool, so that memory that gets scarce is taken from here.

    limit: bytes of memory that idle caches may take.
    """

    def __init__(self, core: EngineCore, limit: int, disk: DiskTier | None = None):
        super().__init__(limit)
        self._core, self._disk = core, disk
        self._idle: list[Held] = []  # latest last
        self._in_use: list[weakref.ref[Held]] = []
        self._continued = self._copied = self._loaded = self._missed = 0

    def take(self, ids: Sequence[int], scope: str, config: ModelConfig) -> Held:
        """The cache for a request with the prompt `ids`; a new one if none helps. Give it back with `put`."""
        idle = [held for held in self._idle if held.matches(scope, config)]
        known = {id(held): held.cache.reusable(ids) for held in idle}
        best = max(idle, key=lambda held: (known[id(held)], held.is_continued(known[id(held)])), default=None)
        shared = known[id(best)] if best is not None else 0
        if best is not None and best.is_continued(shared):
            self._idle.remove(best)
            self._continued += 1
            if shared < len(best.cache.ids):
                self._release(best, shared)
            return self._lend(best)
        others = [held for ref in self._in_use if (held := ref()) is not None and held.matches(scope, config)]
        source = max(
            [*others, *([best] if best else [])], key=lambda held: held.cache.reusable(ids), default=None
        )
        shared = source.cache.reusable(ids) if source else 0
        if (loaded := self._from_disk(ids, scope, config, shared)) is not None:
            self._loaded += 1
            return self._lend(loaded)
        if source is None or shared < MIN_SHARED_TOKENS:
            self._missed += 1
            return self._lend(Held(self._core.new_cache(), scope, config))
        self._copied += 1
        return self._lend(Held(source.cache.fork(ids), scope, config))

    def put(self, held: Held) -> None:
        """Give a cache back, with what was added to it."""
        self._in_use = [ref for ref in self._in_use if ref() not in (None, held)]
        if not held.cache.ids:
            return
        if held.saved is not None and held.saved.tokens != len(held.cache.ids):
            self._release(held, 0)
        held.cache.layers.compact()  # many short prompts would else hold memory for 256 tokens each
        self._idle.append(held)
        self.trim()

    def forget(self, held: Held) -> None:
        """A cache that means nothing any more."""
        self._in_use = [ref for ref in self._in_use if ref() not in (None, held)]

    def trim(self) -> None:
        """Drop caches beyond the limit, those used longest ago first. What is worth it goes to disk."""
        nbytes = sum(held.cache.nbytes for held in self._idle)
        while self._idle and (nbytes > self.limit or len(self._idle) > MOST_IDLE):
            oldest = self._idle.pop(0)
            nbytes -= oldest.cache.nbytes
            self._save(oldest)

    def save_next(self) -> bool:
        """Save the latest cache that is not on disk; whether there was one. For idle moments."""
        return any(held.saved is None and self._save(held) for held in reversed(self._idle))

    def save_all(self) -> None:
        """Save every idle cache."""
        while self.save_next():
            pass

    def release(self) -> None:
        """Give the memory of all idle caches back. What is worth it goes to disk."""
        super().release()
        self.save_all()
        self._idle.clear()

    def stats(self) -> PrefixStats:
        """Figures. From any thread."""
        idle = list(self._idle)
        saved, saved_nbytes = (self._disk.count, self._disk.nbytes) if self._disk else (0, 0)
        return PrefixStats(
            len(idle),
            sum(len(held.cache.ids) for held in idle),
            sum(held.cache.nbytes for held in idle),
            saved,
            saved_nbytes,
            self._continued,
            self._copied,
            self._loaded,
            self._missed,
        )

    def _lend(self, held: Held) -> Held:
        self._in_use = [ref for ref in self._in_use if ref() is not None]
        self._in_use.append(weakref.ref(held))
        return held

    def _from_disk(
        self, ids: Sequence[int], scope: str, config: ModelConfig, better_than: int
    ) -> Held | None:
        if self._disk is None:
            return None
        saved = self._disk.find(ids, scope, config, better_than + MIN_SHARED_TOKENS)
        if saved is None:
            return None
        try:
            self._core.model.scale_positions(config.rope_scaling)
            cache = self._disk.load(saved, config)
        except CacheError:
            self._disk.remove(saved)
            return None
        return Held(cache, scope, config, saved.anchor, saved)

    def _save(self, held: Held) -> bool:
        if self._disk is None or held.saved is not None or not self._disk.wants(held.cache):
            return False
        held.saved = self._disk.save(held.cache, held.scope, held.config, held.anchor)
        return held.saved is not None

    def _release(self, held: Held, tokens: int) -> None:
        """A cache is about to hold something else than its file, but for the first `tokens`."""
        if held.saved is not None and self._disk is not None and tokens < held.saved.tokens:
            self._disk.release(held.saved)
        held.saved = None
