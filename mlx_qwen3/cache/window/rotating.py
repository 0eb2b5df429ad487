"""RotatingKVCache: keeps the first tokens and the latest, in room that is set once and never grows.

A window (window.py) whose positions are counted anew before they grow too large, which can be saved,
copied and quantized.
"""

from __future__ import annotations

from typing import Any, Self

import mlx.core as mx

from mlx_qwen3.cache.buffers import Buffer, DenseBuffer, QuantizedBuffer
from mlx_qwen3.cache.kv import KVCache, QuantizedKVCache
from mlx_qwen3.cache.rows import Rows
from mlx_qwen3.cache.window.attention_sinks import Rotation
from mlx_qwen3.cache.window.window import Window

# How far the ring moves before the first keys are moved after it.
STRIDE = 256
# Positions beyond this are counted anew from the window's, lest they outgrow the angles' precision.
LARGEST_POSITION = 32768


class RotatingKVCache(Window):
    """Keeps the first `keep` tokens and the latest `max_size - keep`. Room is taken at the first write.

    rotation: the model's rotary embedding; without it the first tokens stay where they were, and
    grow ever more distant. Raises CacheError if `keep` leaves no room for others.
    """

    def __init__(self, max_size: int, keep: int = 4, rotation: Rotation | None = None) -> None:
        super().__init__(self._buffers(), max_size, keep, max(STRIDE, keep), rotation)
        self._moved_back = 0  # by how much positions have been counted anew

    def _buffers(self) -> tuple[Buffer, Buffer]:
        return DenseBuffer(), DenseBuffer()

    def _layout(self) -> tuple[int, ...]:
        """What else a cache of the same kind is made with."""
        return ()

    @property
    def tokens(self) -> int:
        return self.offset + self._moved_back

    @tokens.setter
    def tokens(self, value: int) -> None:
        self._moved_back = value - self.offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Rows, Rows]:
        """As of Window; but `offset` moves on by less than L when positions are counted anew."""
        fetched = super().update_and_fetch(keys, values)
        if self.rotation is not None and self.offset >= max(LARGEST_POSITION, 2 * self.max_size):
            self._count_anew()
        return fetched

    def _count_anew(self) -> None:
        """Move all positions back as far as the window allows, by a whole number of strides."""
        # What may be taken back must leave the ring full, or slots would change their meaning.
        spare, stride = 0 if self._undo is None else self._undo.limit, self._first.stride
        back = (self.offset - spare - self.max_size - 1) // stride * stride
        if back <= 0:
            return

        def moved(keys: Rows) -> Rows:
            return self._first.moved(keys, -back)

        self._keys.write(moved(self._keys.read(self.keep, self.max_size)), self.keep)
        if self._undo is not None:
            self._undo.move(-back, moved)
        self._first.move_back()
        self.offset -= back
        self._moved_back += back
        self._ring.turn(back)

    def restart(self) -> None:
        """Forget all but the first `keep` tokens, which are where they were."""
        self.offset = min(self.offset, self.keep)
        self._moved_back = 0
        self._ring.straighten()
        if self._undo is not None:
            self._undo.clear()

    @property
    def state(self) -> tuple[Any, ...]:
        """Keys, values, offset, keep, max_size, and the slot that is written next.

        Keys and values (B, H, size, D) are in the order of slots, or None before the first token. If they
        are quantized, each is (packed, scales, biases), and group size and bits come last.
        """
        slots = self.offset, self.keep, self.max_size, self._ring.next_slot(self.offset)
        return (*self._rows_held(), *slots, *self._layout())

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        keys, values, offset, keep, max_size, slot, *layout = value
        # A state is all there is, but the rotation.
        self.__init__(max_size, keep, None, *layout)  # type: ignore[misc]
        self._restore(keys, values, offset, slot)

    def _rows_held(self) -> tuple[Rows | None, Rows | None]:
        if self.empty():
            return None, None
        keys, values = self._keys.read(0, self.size()), self._values.read(0, self.size())
        return self._first.as_they_came(keys), values

    def _restore(self, keys: Any, values: Any, offset: int, slot: int) -> None:
        self.offset = offset
        if keys is None:
            return
        self._ring.hold(self._keys, keys, offset)
        self._ring.hold(self._values, values, offset)
        if offset > self.max_size:
            self._ring.turn_to(offset, slot)

    @classmethod
    def from_state(cls, state: tuple[Any, ...]) -> Self:
        """A cache holding `state`, as saved; mlx-lm's caches of the same name have the same.

        Set `rotation` on it to have its first tokens follow the window.
        """
        cache = cls.__new__(cls)
        cache.state = state
        return cache

    def copy(self) -> Self:
        """Another cache with the same content. Shares memory until either is written to."""
        other = self.from_state(self.state)
        other.rotation, other._moved_back = self.rotation, self._moved_back
        return other

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> QuantizedRotatingKVCache:
        """The same window, quantized. Raises CacheError for a layout that cannot be."""
        other = QuantizedRotatingKVCache(self.max_size, self.keep, self.rotation, group_size, bits)
        keys, values = self._rows_held()
        if keys is not None and values is not None:
            keys = other._keys.encode(self._keys.decode(keys))
            values = other._values.encode(self._values.decode(values))
        other._restore(keys, values, self.offset, self._ring.next_slot(self.offset))
        other._moved_back = self._moved_back
        return other


class QuantizedRotatingKVCache(RotatingKVCache):
    """RotatingKVCache with rows of 4 or 8 bits a value. `update_and_fetch` returns QuantizedRows."""

    def __init__(
        self,
        max_size: int,
        keep: int = 4,
        rotation: Rotation | None = None,
        group_size: int = 64,
        bits: int = 8,
    ) -> None:
        self.group_size, self.bits = group_size, bits
        super().__init__(max_size, keep, rotation)

    def _buffers(self) -> tuple[Buffer, Buffer]:
        return QuantizedBuffer(self.group_size, self.bits), QuantizedBuffer(self.group_size, self.bits)

    def _layout(self) -> tuple[int, ...]:
        return self.group_size, self.bits

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> QuantizedRotatingKVCache:
        if (group_size, bits) == (self.group_size, self.bits):
            return self
        return super().to_quantized(group_size, bits)


def to_rotating(
    cache: KVCache, max_size: int, keep: int = 4, rotation: Rotation | None = None
) -> RotatingKVCache:
    """A full cache turned into one that rotates, quantized if it was: its first and latest tokens stay.

    Raises CacheError if `keep` leaves no room for others.
    """
    if isinstance(cache, QuantizedKVCache):
        layout = cache.group_size, cache.bits
        window: RotatingKVCache = QuantizedRotatingKVCache(max_size, keep, rotation, *layout)
    else:
        window = RotatingKVCache(max_size, keep, rotation)
    keys, values, *_ = cache.state
    # In the order of time, so that the slot written next is the oldest's, just behind the first ones.
    window._restore(keys, values, cache.offset, max_size)
    return window
