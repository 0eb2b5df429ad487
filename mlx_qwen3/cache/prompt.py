"""The cache of a whole model, and which tokens it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mlx_qwen3.cache.base import Cache


class MakesCache(Protocol):
    def make_cache(self) -> Sequence[Cache]: ...


def make_prompt_cache(model: MakesCache) -> list[Cache]:
    """An empty cache for `model`, one entry a layer."""
    return list(model.make_cache())


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens `a` and `b` share from the start."""
    shared = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    return min(len(a), len(b)) if shared is None else shared


class PromptCache:
    """A model's cache together with the ids it holds, so that a new prompt pays only for what is new."""

    def __init__(self, model: MakesCache):
        self._model = model
        self.layers = make_prompt_cache(model)
        self.ids: list[int] = []

    def reuse(self, ids: Sequence[int]) -> int:
        """Cut the cache back to what it shares with the prompt `ids`; return how many tokens that is.

        At least one token of the prompt is left over: it must be fed to get the next one.
        """
        shared = min(common_prefix(self.ids, ids), len(ids) - 1)
        surplus = len(self.ids) - shared
        if surplus and all(layer.is_trimmable() for layer in self.layers):
            for layer in self.layers:
                layer.trim(surplus)
        elif surplus:
            self.layers, shared = make_prompt_cache(self._model), 0
        self.ids = list(ids[:shared])
        return shared

    def extend(self, ids: Sequence[int]) -> None:
        """Note that `ids` were fed. What the layers do not hold (a cancelled step) is left out."""
        self.ids = (self.ids + list(ids))[: self.layers[0].offset]

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return sum(layer.nbytes for layer in self.layers)
