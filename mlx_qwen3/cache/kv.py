"""KVCache and QuantizedKVCache: keep the keys and values of every token."""

from __future__ import annotations

from typing import Any, Self

import mlx.core as mx

from mlx_qwen3.cache.buffers import Buffer, DenseBuffer, QuantizedBuffer
from mlx_qwen3.cache.rows import Rows, copied
from mlx_qwen3.errors import CacheError

# The first buffer of a full cache, and the unit in which it grows, in tokens.
STEP = 256


def room_for(tokens: int) -> int:
    """The rows a full cache of `tokens` has room for: up to a sixteenth more, which keeps copying rare.

    The same however the tokens came, so that memory can be planned.
    """
    room = STEP
    while room < tokens:
        room += max(STEP, room // 16 // STEP * STEP)
    return room


class StoredCache:
    """What all caches share: a buffer of keys, one of values, and the position of the next token."""

    _keys: Buffer
    _values: Buffer
    offset: int

    @property
    def keys(self) -> Rows | None:
        """All the room for keys, (B, H, capacity, D), written or not; None before the first token."""
        return self._keys.rows

    @property
    def values(self) -> Rows | None:
        """All the room for values; see `keys`."""
        return self._values.rows

    @property
    def tokens(self) -> int:
        """How many tokens have been seen, taken-back ones not counted."""
        return self.offset

    @property
    def meta_state(self) -> str:
        """Nothing: `state` says it all."""
        return ""

    @meta_state.setter
    def meta_state(self, value: str) -> None:
        if value:
            raise CacheError(f"a {type(self).__name__} has no meta state, got {value!r}")

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + self._values.nbytes

    def empty(self) -> bool:
        return self._keys.rows is None

    def detach(self) -> None:
        """Hold memory of its own, and of a full cache no more than the rows held."""
        for buffer in (self._keys, self._values):
            if buffer.rows is not None:
                buffer.hold(copied(buffer.read(0, self._room())))

    def _room(self) -> int:
        """The rows that are needed as they are."""
        return self.offset


class KVCache(StoredCache):
    """Keeps every row, in buffers that grow by a sixteenth so that appending costs few copies."""

    # As mlx-lm names it.
    step = STEP

    def __init__(self) -> None:
        self._keys, self._values = DenseBuffer(), DenseBuffer()
        self.offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Rows, Rows]:
        """Append keys and values (B, H, L, D); return every row so far (B, H, S + L, D)."""
        start, self.offset = self.offset, self.offset + keys.shape[2]
        for buffer, rows in ((self._keys, keys), (self._values, values)):
            encoded = buffer.encode(rows)
            if buffer.capacity < self.offset:
                buffer.reserve(room_for(self.offset), encoded, used=start)
            buffer.write(encoded, start)
        return self._held()

    def _held(self) -> tuple[Rows, Rows]:
        return self._keys.read(0, self.offset), self._values.read(0, self.offset)

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """The mask for `length` new rows; `window_size` limits how far back a row looks."""
        if window_size is None and not return_array:
            return "causal" if length > 1 else None
        if window_size is None and length == 1:
            return None
        queries = mx.arange(self.offset, self.offset + length)[:, None]
        keys = mx.arange(self.offset + length)[None]
        mask = queries >= keys
        return mask if window_size is None else mask & (queries < keys + window_size)

    @property
    def state(self) -> tuple[Any, ...]:
        """Keys held, values held, each (B, H, offset, D) or None before the first token; the offset."""
        keys, values = (None, None) if self.empty() else self._held()
        return keys, values, self.offset

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        keys, values, self.offset = value
        self._keys.hold(keys)
        self._values.hold(values)

    @classmethod
    def from_state(cls, state: tuple[Any, ...]) -> Self:
        """A cache holding `state`, as saved; mlx-lm's caches of the same name have the same."""
        cache = cls()
        cache.state = state
        return cache

    def copy(self) -> Self:
        """Another cache with the same content. Shares memory until either is written to."""
        return self.from_state(self.state)

    def size(self) -> int:
        """Tokens held."""
        return self.offset

    def is_trimmable(self) -> bool:
        return True

    def keep_undo(self, rows: int) -> int:
        """Nothing to do: every token can be taken back."""
        return rows

    def undoable(self) -> int:
        return self.offset

    def trim(self, n: int) -> int:
        n = max(0, min(n, self.offset))
        self.offset -= n
        return n

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> QuantizedKVCache:
        """The same rows, quantized. Raises CacheError for a layout that cannot be."""
        quantized = QuantizedKVCache(group_size, bits)
        if not self.empty():
            keys, values = self.plain()
            quantized.update_and_fetch(keys, values)
        return quantized

    def plain(self) -> tuple[mx.array, mx.array]:
        """Keys and values held, as plain rows (B, H, offset, D). Raises CacheError if there are none."""
        if self.empty():
            raise CacheError("the cache is empty")
        keys, values = self._held()
        return self._keys.decode(keys), self._values.decode(values)


class QuantizedKVCache(KVCache):
    """KVCache with rows of 4 or 8 bits a value. `update_and_fetch` returns QuantizedRows."""

    def __init__(self, group_size: int = 64, bits: int = 8) -> None:
        self._keys, self._values = QuantizedBuffer(group_size, bits), QuantizedBuffer(group_size, bits)
        self.group_size, self.bits = group_size, bits
        self.offset = 0

    @property
    def state(self) -> tuple[Any, ...]:
        """As of KVCache, each of the rows (packed, scales, biases); then group size and bits."""
        keys, values = (None, None) if self.empty() else self._held()
        return keys, values, self.offset, self.group_size, self.bits

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        keys, values, offset, group_size, bits = value
        self.__init__(group_size, bits)  # type: ignore[misc]  # buffers are made for a layout
        self._keys.hold(keys)
        self._values.hold(values)
        self.offset = offset

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> QuantizedKVCache:
        if (group_size, bits) == (self.group_size, self.bits):
            return self
        return super().to_quantized(group_size, bits)
