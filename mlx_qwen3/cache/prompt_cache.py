"""The cache of a whole model, and which tokens it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.kv import KVCache, QuantizedKVCache
from mlx_qwen3.cache.serialization import load_prompt_cache, read_metadata, save_prompt_cache
from mlx_qwen3.cache.snapshots import Mark, MarkRoom
from mlx_qwen3.cache.window.attention_sinks import Rotation
from mlx_qwen3.cache.window.rotating import QuantizedRotatingKVCache, RotatingKVCache
from mlx_qwen3.errors import CacheError

FORMAT = "mlx_qwen3 prompt cache 1"


class MakesCache(Protocol):
    def make_cache(self, **options: Any) -> Sequence[Cache]: ...


def make_prompt_cache(
    model: MakesCache,
    max_size: int | None = None,
    keep: int = 4,
    bits: int | None = None,
    group_size: int = 64,
) -> list[Cache]:
    """An empty cache for `model`, one entry a layer.

    max_size: tokens held; the first `keep` and the latest others stay, without end. None keeps all.
    bits: 4 or 8 quantizes keys and values, `group_size` (32, 64, 128) of them sharing a scale.
    Raises CacheError for a window, bits or group size that cannot be.
    """
    return make_layer_caches(model, CacheConfig(max_size, keep, bits, group_size))


def make_layer_caches(model: MakesCache, config: CacheConfig) -> list[Cache]:
    """As `make_prompt_cache`."""
    if config.max_size is None and config.bits is None:
        return list(model.make_cache())  # which every model of mlx-lm's protocol has
    return list(model.make_cache(**asdict(config)))


def make_layer_cache(config: CacheConfig, rotation: Rotation) -> KVCache | RotatingKVCache:
    """One layer's empty cache. rotation: the layer's rotary embedding."""
    max_size, keep, bits, group_size = config.max_size, config.keep, config.bits, config.group_size
    if max_size is None:
        return KVCache() if bits is None else QuantizedKVCache(group_size, bits)
    if bits is None:
        return RotatingKVCache(max_size, keep, rotation)
    return QuantizedRotatingKVCache(max_size, keep, rotation, group_size, bits)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens `a` and `b` share from the start."""
    shared = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    return min(len(a), len(b)) if shared is None else shared


class PromptCache:
    """A model's cache together with the ids it stands for, so that a new prompt pays only for what is new.

    marks: the memory there is for `mark`, None for as much as it takes.
    """

    def __init__(
        self, model: MakesCache, config: CacheConfig | None = None, *, marks: MarkRoom | None = None
    ):
        self._model, self._marks, self.config = model, marks, config or CacheConfig()
        self._keep = self.config.keep
        self.layers = make_layer_caches(model, self.config)
        self.ids: list[int] = []
        """The ids that were fed and not taken back."""
        self._skipped: list[int] = []
        """The ids never fed, because they would have left the window: their place is after `keep`."""
        self._mark: Mark | None = None
        self._was_cut = False  # since the mark was made

    def begin(self, ids: Sequence[int]) -> list[int]:
        """Cut the cache back to what the prompt `ids` can use of it; return the ids to feed, one at least.

        They are the end of the prompt. With a window they are never more than the window holds: of
        a prompt that would overflow it, what would be pushed out is left out. A window that tokens
        were pushed out of cannot be cut back but to its mark. Where the prompt is not what was fed and
        more (Qwen3's template drops old thinking), and there is no mark in what they share, the window
        is fed anew behind the first tokens.
        """
        held = self._cut(self._usable(ids))
        skipped = self._skipped if held > self._keep else []
        feed = list(ids[held + len(skipped) :])
        if self.config.max_size is not None and len(feed) > self.config.max_size - self._keep:
            held, skipped = self._cut(min(held, self._keep)), []
            room = self.config.max_size - held
            if len(ids) - held > room:
                first, last = list(ids[held : self._keep]), self.config.max_size - self._keep
                skipped, feed = list(ids[self._keep : -last]), first + list(ids[-last:])
        self._skipped = skipped
        return feed

    def mark(self) -> None:
        """Remember a window as it is, in as much memory again, so that `begin` can come back to it.

        To be called where a prompt ends: the next one mostly differs from there on. Where the prompt was
        what had been fed and more, the mark stays where it is, for that may happen again: the calls of
        tools, with the thinking between them, are all dropped after the answer.
        """
        if self.config.max_size is None or (self._mark is not None and not self._was_cut):
            return
        self.drop_mark()
        if self._marks is None or self._marks.admit(self, self.nbytes):
            self._mark, self._was_cut = Mark(list(self.ids), _copies(self.layers)), False

    def drop_mark(self) -> None:
        """Let go of what `mark` remembers."""
        self._mark = None

    def shared(self, ids: Sequence[int]) -> int:
        """How many tokens of the prompt `ids` need not be fed to this cache."""
        held = self._usable(ids)
        if held == len(self.ids) or _is_trimmable(self.layers):
            return held
        mark = self._mark_within(held)
        return len(mark.ids) if mark else min(held, self._keep)

    def fork(self, ids: Sequence[int]) -> PromptCache:
        """Another cache, in memory of its own, that holds what the prompt `ids` shares with this one."""
        twin = PromptCache(self._model, self.config, marks=self._marks)
        twin.layers, twin._mark = [layer.copy() for layer in self.layers], self._mark  # type: ignore[attr-defined]
        twin.ids, twin._skipped = list(self.ids), list(self._skipped)
        if twin._cut(twin.shared(ids)) <= self._keep:
            twin._skipped = []
        twin.layers, twin._mark = _copies(twin.layers), None
        return twin

    def save(self, path: str | Path, fingerprint: Mapping[str, str]) -> None:
        """Write the cache, its ids, and what it was made with, to `path`; a killed save changes nothing.

        fingerprint: what the cache belongs to, asked for again by `load`. Raises CacheError.
        """
        own = {
            "format": FORMAT,
            "ids": json.dumps(self.ids),
            "skipped": json.dumps(self._skipped),
            "tokens": str(self.layers[0].tokens),
            "cache": json.dumps(self.config.changes(), sort_keys=True),
        }
        save_prompt_cache(path, self.layers, {**fingerprint, **own})

    @classmethod
    def load(
        cls,
        model: MakesCache,
        path: str | Path,
        fingerprint: Mapping[str, str],
        config: CacheConfig | None = None,
        *,
        marks: MarkRoom | None = None,
    ) -> PromptCache:
        """The cache saved at `path`, for `model` and caches of `config`.

        Raises CacheError if the file cannot be used, or was made with something else.
        """
        cache, made_with = cls(model, config, marks=marks), read_metadata(path)
        if made_with.get("format") != FORMAT:
            raise CacheError(f"{path} is no saved cache of a conversation")
        layout = json.dumps(cache.config.changes(), sort_keys=True)
        for name, value in {**fingerprint, "cache": layout}.items():
            if made_with.get(name) != value:
                raise CacheError(f"{path} was made with another {name}; the conversation has to be read anew")
        layers, saved = load_prompt_cache(path)
        if [type(layer) for layer in layers] != [type(layer) for layer in cache.layers]:
            raise CacheError(f"{path} holds other layers than this model has")
        for layer, fresh in zip(layers, cache.layers, strict=True):
            if isinstance(layer, RotatingKVCache) and isinstance(fresh, RotatingKVCache):
                layer.rotation, layer.tokens = fresh.rotation, int(saved["tokens"])
        cache.layers = list(layers)
        cache.ids, cache._skipped = json.loads(saved["ids"]), json.loads(saved["skipped"])
        return cache

    def extend(self, ids: Sequence[int]) -> None:
        """Note that `ids` were fed. What the layers do not hold (a cancelled step) is left out."""
        self.ids = (self.ids + list(ids))[: self.layers[0].tokens]

    def _usable(self, ids: Sequence[int]) -> int:
        """How many of the ids fed are also the prompt's; at least one of the prompt is left over."""
        whole = self.ids[: self._keep] + self._skipped + self.ids[self._keep :]
        shared = min(common_prefix(whole, ids), len(ids) - 1)
        behind_gap = shared - len(self._skipped)
        return behind_gap if behind_gap > self._keep else min(shared, self._keep if self._skipped else shared)

    def _cut(self, count: int) -> int:
        """Keep the first `count` ids fed, or as many of them as can be; return how many that is."""
        surplus = len(self.ids) - count
        if not surplus:
            return count
        self._was_cut = True
        self._mark = self._mark_within(count)
        if _is_trimmable(self.layers):
            for layer in self.layers:
                layer.trim(surplus)
        elif self._mark is not None:
            count, self.layers = len(self._mark.ids), _copies(self._mark.layers)
        else:
            count = self._restart() if count >= self._keep > 0 else 0
            if count == 0:
                self.layers = make_layer_caches(self._model, self.config)
        self.ids = self.ids[:count]
        return count

    def _mark_within(self, count: int) -> Mark | None:
        """The mark, if it lies within the first `count` ids fed."""
        mark = self._mark
        return mark if mark is not None and len(mark.ids) <= count else None

    def _restart(self) -> int:
        """Go back to the first tokens, which a window still holds; return how many, 0 if it does not."""
        windows = [layer for layer in self.layers if isinstance(layer, RotatingKVCache)]
        for window in windows:
            window.restart()
        return self._keep if windows else 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory held, those of the mark not counted."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def mark_nbytes(self) -> int:
        """Bytes that `mark` holds besides."""
        return 0 if self._mark is None else sum(layer.nbytes for layer in self._mark.layers)


def _is_trimmable(layers: Sequence[Cache]) -> bool:
    return all(layer.is_trimmable() for layer in layers)


def _copies(layers: Sequence[Cache]) -> list[Cache]:
    """The same content in memory of its own."""
    copies: list[Any] = [layer.copy() for layer in layers]  # type: ignore[attr-defined]
    for layer in copies:
        layer.detach()
    mx.eval([layer.state for layer in copies])
    return copies
