"""PromptCache: the KV caches of all layers, and the ids of the tokens they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.kv import KVCache, QuantizedKVCache
from mlx_qwen3.cache.layers import CacheLayers, as_layers
from mlx_qwen3.cache.saved_state import LayerShape
from mlx_qwen3.cache.serialization import read_metadata
from mlx_qwen3.cache.snapshots import Snapshot, SnapshotBudget
from mlx_qwen3.cache.window.attention_sinks import Rotation
from mlx_qwen3.cache.window.rotating import QuantizedRotatingKVCache, RotatingKVCache
from mlx_qwen3.errors import CacheError

FORMAT = "mlx_qwen3 prompt cache 1"
STRETCH = 512  # tokens compared at once
# Stands for the token after a prompt's start. No token has this id.
UNKNOWN_ID = -1


class MakesCache(Protocol):
    """A model that makes its own cache."""

    def make_cache(self, **options: Any) -> Sequence[Cache]: ...


def make_prompt_cache(
    model: MakesCache,
    max_size: int | None = None,
    keep: int = 4,
    bits: int | None = None,
    group_size: int = 64,
) -> list[Cache]:
    """Make an empty KV cache for `model`.

    Args:
        model: A model of `load_model`, or of mlx-lm for a full, plain cache.
        max_size: Tokens of a sliding window: the first `keep` and the latest others. None keeps every token.
        keep: First tokens that a window never drops (attention sinks).
        bits: 4 or 8 quantizes keys and values; None keeps their dtype.
        group_size: Values that share a scale where they are quantized: 32, 64 or 128.

    Returns:
        One cache per layer.

    Raises:
        CacheError: The window, bits or group size cannot be.
    """
    return make_layer_caches(model, CacheConfig(max_size, keep, bits, group_size))


def make_layer_caches(model: MakesCache, config: CacheConfig) -> CacheLayers:
    """Make an empty KV cache for `model`, one per layer. Raises CacheError as `make_prompt_cache`."""
    if config.max_size is None and config.bits is None:
        return as_layers(model.make_cache())  # mlx-lm's models take no options
    return as_layers(model.make_cache(**asdict(config)))


def make_layer_cache(config: CacheConfig, rotation: Rotation) -> KVCache | RotatingKVCache:
    """Make the empty KV cache of one layer. rotation: the layer's rotary embedding."""
    max_size, keep, bits, group_size = config.max_size, config.keep, config.bits, config.group_size
    if max_size is None:
        return KVCache() if bits is None else QuantizedKVCache(group_size, bits)
    if bits is None:
        return RotatingKVCache(max_size, keep, rotation)
    return QuantizedRotatingKVCache(max_size, keep, rotation, group_size, bits)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens `a` and `b` share from the start."""
    if type(a) is not type(b):
        a, b = list(a), list(b)
    start = 0
    while start < min(len(a), len(b)) and a[start : start + STRETCH] == b[start : start + STRETCH]:
        start += STRETCH  # lists compare a stretch at once
    different = (i for i, (x, y) in enumerate(zip(a[start:], b[start:], strict=False), start) if x != y)
    return next(different, min(len(a), len(b)))


class PromptCache:
    """A model's KV cache with the ids it holds, so that of a new prompt only the new tokens are fed.

    snapshots: the budget for snapshots; None sets no limit.
    """

    def __init__(
        self, model: MakesCache, config: CacheConfig | None = None, *, snapshots: SnapshotBudget | None = None
    ):
        self.config = config or CacheConfig()
        self.layers = make_layer_caches(model, self.config)
        self.ids: list[int] = []
        """The ids fed, less those trimmed."""
        self._model, self._snapshots = model, snapshots
        self._keep = self.config.keep
        # Ids of the prompt after the first `keep` that were never fed, as a window would have dropped them.
        self._skipped: list[int] = []
        self._snapshot: Snapshot | None = None
        self._was_cut = False  # since the snapshot was taken

    def begin(self, ids: Sequence[int]) -> list[int]:
        """Cut the cache back to what the prompt `ids` can reuse; return the ids to feed, at least the last.

        With a window, at most as many are fed as it holds: what it would drop of a longer prompt is skipped.

        A window that has dropped tokens can be cut back to its snapshot only. If the prompt does not go on
        from what was fed (Qwen3's template removes old thinking), and the snapshot is of no use either, the
        first tokens are kept and the window is fed again after them.
        """
        held = self._cut(self._common_prefix(ids))
        skipped = self._skipped if held > self._keep else []
        feed = list(ids[held + len(skipped) :])
        max_size = self.config.max_size
        if max_size is not None and len(feed) > max_size - self._keep:
            held, skipped = self._cut(min(held, self._keep)), []
            if len(ids) > max_size:
                first, num_last = list(ids[held : self._keep]), max_size - self._keep
                skipped, feed = list(ids[self._keep : -num_last]), first + list(ids[-num_last:])
        self._skipped = skipped
        return feed

    def begin_prefix(self, ids: Sequence[int]) -> list[int]:
        """As `begin`, for the start of a prompt: returns the ids to feed, perhaps none."""
        return self.begin([*ids, UNKNOWN_ID])[:-1]

    def extend(self, ids: Sequence[int]) -> None:
        """Record that `ids` were fed. Those that the layers do not hold (a cancelled step) are left out."""
        self.ids = (self.ids + list(ids))[: self.layers[0].tokens]

    def take_snapshot(self) -> None:
        """Copy the window, so that `begin` can roll back to it. Does nothing for a full cache.

        To be called at the end of a prompt, from where the next one usually differs. If the prompt went on
        from what was fed, the earlier snapshot stays, as it will be needed again: after the answer, the tool
        calls of a turn and the thinking between them are all removed from the prompt.
        """
        if self.config.max_size is None or (self._snapshot is not None and not self._was_cut):
            return
        self.drop_snapshot()
        if self._snapshots is None or self._snapshots.reserve(self, self.nbytes):
            self._snapshot, self._was_cut = Snapshot(list(self.ids), _copies(self.layers)), False

    def drop_snapshot(self) -> None:
        """Free the snapshot's memory."""
        self._snapshot = None

    def reusable(self, ids: Sequence[int]) -> int:
        """How many tokens of the prompt `ids` need not be fed to this cache."""
        held = self._common_prefix(ids)
        if held == len(self.ids) or self.layers.is_trimmable:
            return held
        snapshot = self._snapshot_within(held)
        return len(snapshot.ids) if snapshot else min(held, self._keep)

    def fork(self, ids: Sequence[int]) -> PromptCache:
        """Another cache, in memory of its own, with what the prompt `ids` can reuse of this one."""
        fork = PromptCache(self._model, self.config, snapshots=self._snapshots)
        fork.layers, fork._snapshot = self.layers.shared_copy(), self._snapshot
        fork.ids, fork._skipped = list(self.ids), list(self._skipped)
        if fork._cut(fork.reusable(ids)) <= self._keep:
            fork._skipped = []
        fork.layers, fork._snapshot = _copies(fork.layers), None
        return fork

    def save(self, path: str | Path, fingerprint: Mapping[str, str]) -> None:
        """Write the cache and its ids to `path`. A killed save leaves the old file as it was.

        fingerprint: what the cache depends on (model, template, ...); `load` compares it. Raises CacheError.
        """
        own = {
            "format": FORMAT,
            "ids": json.dumps(self.ids),
            "skipped": json.dumps(self._skipped),
            "tokens": str(self.layers[0].tokens),
            "cache": json.dumps(self.config.changes(), sort_keys=True),
        }
        self.layers.save(Path(path), {**fingerprint, **own})

    @classmethod
    def load(
        cls,
        model: MakesCache,
        path: str | Path,
        fingerprint: Mapping[str, str],
        config: CacheConfig | None = None,
        *,
        snapshots: SnapshotBudget | None = None,
    ) -> PromptCache:
        """The cache saved at `path`, for `model` and caches of `config`.

        Raises CacheError if the file cannot be used, or was saved with another fingerprint or config.
        """
        cache, metadata = cls(model, config, snapshots=snapshots), read_metadata(path)
        if metadata.get("format") != FORMAT:
            raise CacheError(f"{path} is not the saved KV cache of a conversation")
        required = {**fingerprint, "cache": json.dumps(cache.config.changes(), sort_keys=True)}
        for name, value in required.items():
            if metadata.get(name) != value:
                raise CacheError(
                    f"{path} was saved with another {name}; the conversation has to be prefilled again"
                )
        ids, skipped, tokens = _saved_ids(path, metadata)
        like, shape = cache.config.window_and_layout, layer_shape(model)
        cache.layers = cache.layers.loaded(Path(path), metadata, tokens, like, shape)
        cache.ids, cache._skipped = ids, skipped
        return cache

    def _common_prefix(self, ids: Sequence[int]) -> int:
        """How many of the ids fed are also the prompt's. Leaves at least one of the prompt's to feed."""
        fed = self.ids[: self._keep] + self._skipped + self.ids[self._keep :]
        shared = min(common_prefix(fed, ids), len(ids) - 1)
        if not self._skipped:
            return shared
        shared_after_skipped = shared - len(self._skipped)
        return shared_after_skipped if shared_after_skipped > self._keep else min(shared, self._keep)

    def _cut(self, count: int) -> int:
        """Keep the first `count` ids fed, or as many of them as possible; return how many."""
        surplus = len(self.ids) - count
        if not surplus:
            return count
        self._was_cut = True
        self._snapshot = self._snapshot_within(count)
        if self.layers.is_trimmable:
            self.layers.trim(surplus)
        elif self._snapshot is not None:
            count, self.layers = len(self._snapshot.ids), _copies(self._snapshot.layers)
        else:
            count = self._keep if count >= self._keep > 0 and self.layers.restart() else 0
            if count == 0:
                self.layers = make_layer_caches(self._model, self.config)
        self.ids = self.ids[:count]
        return count

    def _snapshot_within(self, count: int) -> Snapshot | None:
        """The snapshot, if it was taken within the first `count` ids fed."""
        snapshot = self._snapshot
        return snapshot if snapshot is not None and len(snapshot.ids) <= count else None

    @property
    def nbytes(self) -> int:
        """Bytes of memory held, without the snapshot."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def snapshot_nbytes(self) -> int:
        """Bytes of the snapshot; 0 without one."""
        return 0 if self._snapshot is None else sum(layer.nbytes for layer in self._snapshot.layers)


def _saved_ids(path: str | Path, metadata: Mapping[str, str]) -> tuple[list[int], list[int], int]:
    """The ids fed, those skipped, and the number of tokens held. Raises CacheError where they cannot be."""
    try:
        ids, skipped, tokens = (json.loads(metadata[name]) for name in ("ids", "skipped", "tokens"))
        is_sound = all(type(item) is int and item >= 0 for item in [*ids, *skipped, tokens])
    except (KeyError, ValueError, TypeError, RecursionError):
        is_sound = False
    if not is_sound or len(ids) != tokens:
        raise CacheError(
            f"{path} does not say which tokens it holds; the conversation has to be prefilled again"
        )
    return ids, skipped, tokens


def layer_shape(model: Any) -> LayerShape | None:
    """The shape of the rows of `model`; None for a model that does not say it."""
    args = getattr(model, "args", None)
    heads, head_dim = getattr(args, "num_key_value_heads", None), getattr(args, "head_dim", None)
    return LayerShape(heads, head_dim) if isinstance(heads, int) and isinstance(head_dim, int) else None


def _copies(layers: CacheLayers) -> CacheLayers:
    """The same content in memory of its own."""
    copies = layers.shared_copy()
    copies.detach()
    return copies
