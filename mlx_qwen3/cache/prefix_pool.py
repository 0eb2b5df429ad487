"""Prefixes that conversations share: what one has read, another need not read again."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from mlx_qwen3.cache.prompt_cache import PromptCache

# Fewer tokens in common are read again as fast as they are copied.
LEAST_SHARED = 64


class PrefixPool:
    """The caches of an engine's conversations, those under way and, within `limit` bytes, those ended.

    A key says what a cache was filled with beyond its ids, such as how positions are scaled.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._known: list[tuple[weakref.ref[PromptCache], object]] = []
        self._held: list[PromptCache] = []  # latest last; keeps ended conversations' caches

    def add(self, cache: PromptCache, key: object) -> None:
        """Note a cache that was just used; those used longest ago are let go beyond the limit."""
        others = [(known, of) for known, of in self._known if known() not in (None, cache)]
        self._known = [*others, (weakref.ref(cache), key)]
        self._held = [*(held for held in self._held if held is not cache), cache]
        while self._held and sum(held.nbytes for held in self._held) > self.limit:
            self._held.pop(0)

    def find(self, ids: Sequence[int], key: object, better_than: int = 0) -> PromptCache | None:
        """A new cache of the longest prefix of the prompt `ids` that is known, if it is worth it.

        better_than: tokens of it that are at hand anyhow.
        """
        caches = [cache for known, of in self._known if of == key and (cache := known()) is not None]
        best = max(caches, key=lambda cache: cache.shared(ids), default=None)
        if best is None or best.shared(ids) < better_than + LEAST_SHARED:
            return None
        return best.fork(ids)
