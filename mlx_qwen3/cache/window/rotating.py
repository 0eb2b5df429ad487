"""RotatingKVCache and its quantized form: a window (window.py) that can be saved, copied and quantized.

Positions are lowered together before they outgrow the precision of RoPE's angles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import mlx.core as mx

from mlx_qwen3.cache.buffers import make_buffer
from mlx_qwen3.cache.kv import NO_QUANTIZED_BATCH, KVCache, QuantizedKVCache
from mlx_qwen3.cache.mlx_lm_batches import merge_windows
from mlx_qwen3.cache.rows import Layout, Rows
from mlx_qwen3.cache.window.attention_sinks import Rotation
from mlx_qwen3.cache.window.window import Window
from mlx_qwen3.errors import CacheError

# How far the ring moves before the first keys are shifted after it, in tokens.
STRIDE = 256
# Positions from here on are lowered, to keep the angles of RoPE precise.
LARGEST_POSITION = 32768


class RotatingKVCache(Window):
    """Keeps the first `keep` tokens and the latest `max_size - keep`. Allocated at the first write.

    rotation: the model's rotary embedding; without it the first keys are not shifted, and grow ever more
    distant. Raises CacheError if `keep` leaves no slot for other tokens.
    """

    def __init__(self, max_size: int, keep: int = 4, rotation: Rotation | None = None) -> None:
        self._start(max_size, keep, rotation, None)

    def _start(self, max_size: int, keep: int, rotation: Rotation | None, layout: Layout | None) -> None:
        """Empty the cache, for a window of this size and rows of this layout."""
        buffers = make_buffer(layout), make_buffer(layout)
        self._clear(buffers, max_size, keep, max(STRIDE, keep), rotation)
        self._lowered = 0  # by how much positions have been lowered
        self._layout = layout

    @property
    def tokens(self) -> int:
        return self.offset + self._lowered

    @tokens.setter
    def tokens(self, value: int) -> None:
        self._lowered = value - self.offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Rows, Rows]:
        """As of Window, but `offset` moves on by less than L when positions are lowered."""
        fetched = super().update_and_fetch(keys, values)
        if self.rotation is not None and self.offset >= max(LARGEST_POSITION, 2 * self.max_size):
            self._lower_positions()
        return fetched

    def _lower_positions(self) -> None:
        """Lower all positions as far as the window allows, by a multiple of the stride."""
        # After a roll back the ring must still be full, or slots would belong to other positions.
        spare, stride = 0 if self._rollback is None else self._rollback.limit, self._sinks.stride
        by = (self.offset - spare - self.max_size - 1) // stride * stride
        if by <= 0:
            return

        def lowered(keys: Rows) -> Rows:
            return self._sinks.shifted(keys, -by)

        self._keys.write(lowered(self._keys.read(self.keep, self.max_size)), self.keep)
        if self._rollback is not None:
            self._rollback.shift_positions(-by, lowered)
        self._sinks.unshift()
        self.offset -= by
        self._lowered += by
        self._ring.lower_positions(by)

    def restart(self) -> None:
        """Remove all but the first `keep` tokens."""
        self.offset = min(self.offset, self.keep)
        self._lowered = 0
        self._ring.reset()
        if self._rollback is not None:
            self._rollback.clear()

    @property
    def state(self) -> tuple[Any, ...]:
        """(keys, values, offset, keep, max_size, next slot), and for quantized rows (..., group size, bits).

        Rows (B, H, size, D) are in the order of slots, the first keys unshifted; None before the first token.
        Quantized rows are (packed, scales, biases). The rotation is not part of it.
        """
        slots = self.offset, self.keep, self.max_size, self._ring.next_slot(self.offset)
        return (*self.keys_and_values(), *slots, *(self._layout or ()))

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        keys, values, offset, keep, max_size, slot, *layout = value
        if len(layout) != len(self._layout or ()):
            raise CacheError(f"the state has {len(value)} entries, which is not a {type(self).__name__}'s")
        self._start(max_size, keep, None, Layout(*layout) if layout else None)
        self._restore(keys, values, offset, slot)

    def keys_and_values(self) -> tuple[Rows | None, Rows | None]:
        """The rows held, in the order of slots, the first keys unshifted; None before the first token."""
        if self.empty():
            return None, None
        keys, values = self._keys.read(0, self.size()), self._values.read(0, self.size())
        return self._sinks.unshifted(keys), values

    def _restore(self, keys: Any, values: Any, offset: int, slot: int) -> None:
        """Fill the empty cache with rows in the order of slots, `slot` being written next."""
        self.offset = offset
        if keys is None:
            return
        self._ring.hold(self._keys, keys, offset)
        self._ring.hold(self._values, values, offset)
        if offset > self.max_size:
            self._ring.align(offset, slot)

    @classmethod
    def from_state(cls, state: tuple[Any, ...]) -> Self:
        """A cache with `state`, which may be the state of mlx-lm's cache of the same name.

        Set `rotation` on it to have the first keys shifted as the window moves.
        """
        keep, max_size = state[3:5]
        cache = cls(max_size, keep)
        cache.state = state
        return cache

    def copy(self) -> Self:
        """A cache with the same content. The two share memory until one of them is written to."""
        other = self.from_state(self.state)
        other.rotation, other.tokens = self.rotation, self.tokens
        return other

    @classmethod
    def merge(cls, caches: Sequence[RotatingKVCache]) -> Any:
        """`caches`, one a sequence, joined for a batch of mlx-lm."""
        if any(isinstance(cache, QuantizedRotatingKVCache) for cache in caches):
            raise CacheError(NO_QUANTIZED_BATCH)
        return merge_windows(caches)

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> QuantizedRotatingKVCache:
        """The same window, quantized. Raises CacheError for unknown bits or group sizes."""
        other = QuantizedRotatingKVCache(self.max_size, self.keep, self.rotation, group_size, bits)
        keys, values = self.keys_and_values()
        if keys is not None and values is not None:
            keys = other._keys.encode(self._keys.decode(keys))
            values = other._values.encode(self._values.decode(values))
        other._restore(keys, values, self.offset, self._ring.next_slot(self.offset))
        other.tokens = self.tokens
        return other


class QuantizedRotatingKVCache(RotatingKVCache):
    """RotatingKVCache with rows of 4 or 8 bits per value. `update_and_fetch` returns QuantizedRows."""

    def __init__(
        self,
        max_size: int,
        keep: int = 4,
        rotation: Rotation | None = None,
        group_size: int = 64,
        bits: int = 8,
    ) -> None:
        self._start(max_size, keep, rotation, Layout(group_size, bits))

    def _start(self, max_size: int, keep: int, rotation: Rotation | None, layout: Layout | None) -> None:
        super()._start(max_size, keep, rotation, layout)
        assert layout is not None
        self.group_size, self.bits = layout

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> QuantizedRotatingKVCache:
        if (group_size, bits) == (self.group_size, self.bits):
            return self
        return super().to_quantized(group_size, bits)


def to_rotating(
    cache: KVCache, max_size: int, keep: int = 4, rotation: Rotation | None = None
) -> RotatingKVCache:
    """A rotating cache with the first and latest tokens of a full one, quantized if that is.

    Raises CacheError if `keep` leaves no slot for other tokens.
    """
    if isinstance(cache, QuantizedKVCache):
        layout = cache.group_size, cache.bits
        window: RotatingKVCache = QuantizedRotatingKVCache(max_size, keep, rotation, *layout)
    else:
        window = RotatingKVCache(max_size, keep, rotation)
    keys, values, *_ = cache.state
    # Rows are in order of time, so the oldest, which is overwritten next, is right after the first ones.
    window._restore(keys, values, cache.offset, max_size)
    return window
