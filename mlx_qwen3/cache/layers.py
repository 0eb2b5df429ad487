"""CacheLayers: the KV caches of a model's layers, which are always changed alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_qwen3.cache.base import Cache, roll_back
from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.cache.saved_state import LayerShape, State, check_for_model
from mlx_qwen3.cache.serialization import load_prompt_cache, save_prompt_cache
from mlx_qwen3.cache.window.rotating import RotatingKVCache
from mlx_qwen3.errors import CacheError

PART = "part"  # in a file's metadata: other machines have parts of the cache, under this name


class CacheLayers(list[Cache]):
    """One cache a layer. What changes them all is a method, so that it can be repeated on other machines."""

    @property
    def is_trimmable(self) -> bool:
        """Whether `trim` can remove any number of tokens."""
        return all(layer.is_trimmable() for layer in self)

    def trim(self, tokens: int) -> None:
        """Remove the latest `tokens` tokens of caches that are trimmable."""
        for layer in self:
            layer.trim(tokens)

    def roll_back(self, tokens: int) -> None:
        """Remove the latest `tokens` tokens. Raises CacheError if a layer cannot."""
        roll_back(self, tokens)

    def keep_for_rollback(self, tokens: int) -> int:
        """From now on, be able to roll back so many tokens; returns how many can be promised."""
        return min(layer.keep_for_rollback(tokens) for layer in self)

    def expect(self, tokens: int) -> None:
        """A prompt will make each cache so many tokens: full caches grow to that at once."""
        for layer in self:
            if isinstance(layer, KVCache):
                layer.expect(tokens)

    def restart(self) -> bool:
        """Cut windows back to their first tokens; False if there is none."""
        windows = [layer for layer in self if isinstance(layer, RotatingKVCache)]
        for window in windows:
            window.restart()
        return bool(windows)

    def shared_copy(self) -> CacheLayers:
        """The same content. The two share memory until one of them is written to."""
        return CacheLayers(layer.copy() for layer in self)

    def detach(self) -> None:
        """Copy the rows into memory of their own."""
        for layer in self:
            layer.detach()
        mx.eval(self.states())

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write them to `path`. Raises CacheError as `save_prompt_cache`."""
        save_prompt_cache(path, self, metadata)

    def loaded(
        self,
        path: Path,
        metadata: Mapping[str, str],
        tokens: int,
        like: tuple[int, ...],
        shape: LayerShape | None,
    ) -> CacheLayers:
        """The caches saved at `path`, which are to replace these empty ones. Raises CacheError.

        metadata, tokens: what the file says. like, shape: of this model's caches, as `check_for_model`.
        """
        if PART in metadata:
            raise CacheError(
                f"{path} was saved by a model over several machines; the conversation has to be prefilled "
                "again"
            )
        return self.read_from(path, tokens, like, shape)

    def read_from(
        self, path: Path, tokens: int, like: tuple[int, ...], shape: LayerShape | None
    ) -> CacheLayers:
        """As `loaded`, whatever the file says."""

        def check(names: list[str], states: list[State]) -> None:
            if names != [type(layer).__name__ for layer in self]:
                raise ValueError("it holds other layers than this model has")
            for state in states:
                check_for_model(state, shape, tokens, like)

        layers, _ = load_prompt_cache(path, check)
        for layer, empty in zip(layers, self, strict=True):
            if isinstance(layer, RotatingKVCache) and isinstance(empty, RotatingKVCache):
                layer.rotation, layer.tokens = empty.rotation, tokens
        return CacheLayers(layers)

    def compact(self) -> None:
        """Give up spare capacity where that is half of the memory or more, as in a cache that lies idle."""
        first = self[0]
        if isinstance(first, KVCache) and 2 * first.tokens <= first.capacity:
            self.detach()

    def states(self) -> list[Any]:
        """The content of every layer, to be evaluated."""
        return [layer.state for layer in self]


def as_layers(caches: Iterable[Cache]) -> CacheLayers:
    """`caches` as CacheLayers; one that is so already stays itself."""
    return caches if isinstance(caches, CacheLayers) else CacheLayers(caches)
