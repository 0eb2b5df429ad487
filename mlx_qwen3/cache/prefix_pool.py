"""PrefixPool: prompts start from the KV cache of another conversation that begins alike."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from mlx_qwen3.cache.prompt_cache import PromptCache

# Prefilling fewer tokens than this is as fast as copying their rows.
MIN_SHARED_TOKENS = 64


class PrefixPool:
    """The caches of an engine's conversations: those in use, and up to `limit` bytes of others.

    A key tells apart caches that the same ids fill differently, such as by another scaling of positions.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._known: list[tuple[weakref.ref[PromptCache], object]] = []
        self._kept: list[PromptCache] = []  # latest last; keeps the caches of ended conversations alive

    def add(self, cache: PromptCache, key: object) -> None:
        """Add a cache that was just used. Those used longest ago are dropped beyond the limit."""
        others = [(known, known_key) for known, known_key in self._known if known() not in (None, cache)]
        self._known = [*others, (weakref.ref(cache), key)]
        self._kept = [*(kept for kept in self._kept if kept is not cache), cache]
        while self._kept and sum(kept.nbytes for kept in self._kept) > self.limit:
            self._kept.pop(0)

    def release(self) -> None:
        """Drop the caches of conversations that have ended, to free their memory."""
        self._kept = []

    def find(self, ids: Sequence[int], key: object, better_than: int = 0) -> PromptCache | None:
        """A new cache with the longest known prefix of the prompt `ids`; None if it saves too little.

        better_than: tokens of the prompt that the caller's own cache holds.
        """
        candidates = [cache() for cache, cache_key in self._known if cache_key == key]
        caches = [cache for cache in candidates if cache is not None]
        best = max(caches, key=lambda cache: cache.reusable(ids), default=None)
        if best is None or best.reusable(ids) < better_than + MIN_SHARED_TOKENS:
            return None
        return best.fork(ids)
