"""KVCache and QuantizedKVCache: full KV caches, which keep the keys and values of every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import mlx.core as mx

from mlx_qwen3.cache.buffers import Buffer, Place, make_buffer
from mlx_qwen3.cache.mlx_lm_batches import merge_full
from mlx_qwen3.cache.rows import Layout, Rows, copied
from mlx_qwen3.errors import CacheError

# The first capacity of a full cache, and the unit in which it grows, in tokens.
STEP = 256
NO_QUANTIZED_BATCH = (
    "mlx-lm has no batches of quantized KV caches: leave out bits, or use Engine.generate_batch"
)


def capacity_for(tokens: int) -> int:
    """The capacity of a full cache of `tokens`: up to a sixteenth more than it holds, so it is rarely copied.

    It is the same in whatever chunks the tokens came, so memory can be planned.
    """
    capacity = STEP
    while capacity < tokens:
        capacity += max(STEP, capacity // 16 // STEP * STEP)
    return capacity


class StoredCache:
    """Base of all caches: a buffer of keys, a buffer of values, and the position of the next token."""

    # mlx-lm's attribute of the same name.
    step = STEP

    _keys: Buffer
    _values: Buffer
    offset: int

    @property
    def keys(self) -> Rows | None:
        """The whole buffer of keys, (B, H, capacity, D), used or not; None before the first token."""
        return self._keys.rows

    @property
    def values(self) -> Rows | None:
        """The whole buffer of values; see `keys`."""
        return self._values.rows

    @property
    def tokens(self) -> int:
        """How many tokens were written, less those trimmed."""
        return self.offset

    @property
    def capacity(self) -> int:
        """How many tokens the buffers have memory for."""
        return self._keys.capacity

    @property
    def meta_state(self) -> str:
        """Empty: `state` is complete."""
        return ""

    @meta_state.setter
    def meta_state(self, value: str) -> None:
        if value:
            raise CacheError(f"a {type(self).__name__} has no meta state, got {value!r}")

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + self._values.nbytes

    def empty(self) -> bool:
        return self._keys.is_empty

    def detach(self) -> None:
        """Copy the rows into memory of the cache's own; a full cache also gives up its spare capacity."""
        for buffer in (self._keys, self._values):
            if not buffer.is_empty:
                buffer.hold(copied(buffer.read(0, self._capacity_needed())))

    def _capacity_needed(self) -> int:
        return self.offset

    @property
    def is_float32(self) -> bool:
        """Whether the rows are plain numbers in fp32."""
        return self._keys.is_float32 and self._values.is_float32

    def places(self) -> tuple[Place, Place]:
        """Where keys and values in fp32 lie; see `Buffer.place`."""
        return self._keys.place(), self._values.place()


class KVCache(StoredCache):
    """Keeps every token."""

    _expected = 0  # tokens of a prompt under way: the buffers get their capacity at once

    def expect(self, tokens: int) -> None:
        """A prompt will make it so many tokens: when it grows next, it grows to that, and is copied once."""
        self._expected = tokens

    def __init__(self) -> None:
        self._keys, self._values = make_buffer(None), make_buffer(None)
        self.offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Rows, Rows]:
        """Append keys and values (B, H, L, D); return all rows so far, (B, H, S + L, D)."""
        self.extend(keys, values)
        return self._used_rows()

    def extend(self, keys: mx.array, values: mx.array) -> None:
        """Append keys and values (B, H, L, D)."""
        start, self.offset = self.offset, self.offset + keys.shape[2]
        for buffer, rows in ((self._keys, keys), (self._values, values)):
            encoded = buffer.encode(rows)
            if buffer.capacity < self.offset:
                buffer.reserve(capacity_for(max(self.offset, self._expected)), encoded, used=start)
            buffer.write(encoded, start)

    def advance(self, length: int) -> None:
        """The next `length` rows were written to `places`."""
        self.offset += length

    def _used_rows(self) -> tuple[Rows, Rows]:
        return self._keys.read(0, self.offset), self._values.read(0, self.offset)

    def keys_and_values(self) -> tuple[Rows | None, Rows | None]:
        """The rows held; None before the first token."""
        return (None, None) if self.empty() else self._used_rows()

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """The mask for `length` new tokens. window_size: how many tokens each may see, itself included."""
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
        """(keys, values, offset): rows (B, H, offset, D), or None before the first token."""
        return *self.keys_and_values(), self.offset

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        keys, values, self.offset = value
        self._keys.hold(keys)
        self._values.hold(values)

    @classmethod
    def from_state(cls, state: tuple[Any, ...]) -> Self:
        """A cache with `state`, which may be the state of mlx-lm's cache of the same name."""
        cache = cls()
        cache.state = state
        return cache

    def copy(self) -> Self:
        """A cache with the same content. The two share memory until one of them is written to."""
        return self.from_state(self.state)

    def size(self) -> int:
        """Tokens held."""
        return self.offset

    def is_trimmable(self) -> bool:
        return True

    def trim(self, n: int) -> int:
        n = max(0, min(n, self.offset))
        self.offset -= n
        return n

    def max_trim(self) -> int:
        return self.offset

    def keep_for_rollback(self, tokens: int) -> int:
        """Nothing to do: every token can be trimmed."""
        return tokens

    @classmethod
    def merge(cls, caches: Sequence[KVCache]) -> Any:
        """`caches`, one a sequence, joined for a batch of mlx-lm."""
        if any(isinstance(cache, QuantizedKVCache) for cache in caches):
            raise CacheError(NO_QUANTIZED_BATCH)
        return merge_full(caches)

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> QuantizedKVCache:
        """A cache with the same rows, quantized. Raises CacheError for unknown bits or group sizes."""
        quantized = QuantizedKVCache(group_size, bits)
        if not self.empty():
            keys, values = self._used_rows()
            quantized.update_and_fetch(self._keys.decode(keys), self._values.decode(values))
        return quantized


class QuantizedKVCache(KVCache):
    """KVCache with rows of 4 or 8 bits per value. `update_and_fetch` returns QuantizedRows."""

    def __init__(self, group_size: int = 64, bits: int = 8) -> None:
        self._clear(group_size, bits)

    def _clear(self, group_size: int, bits: int) -> None:
        """Empty the cache, for rows of this layout."""
        self.group_size, self.bits = group_size, bits
        layout = Layout(group_size, bits)
        self._keys, self._values = make_buffer(layout), make_buffer(layout)
        self.offset = 0

    @property
    def state(self) -> tuple[Any, ...]:
        """(keys, values, offset, group size, bits): as of KVCache, rows as (packed, scales, biases)."""
        return *self.keys_and_values(), self.offset, self.group_size, self.bits

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        keys, values, offset, group_size, bits = value
        self._clear(group_size, bits)
        self._keys.hold(keys)
        self._values.hold(values)
        self.offset = offset

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> QuantizedKVCache:
        if (group_size, bits) == (self.group_size, self.bits):
            return self
        return super().to_quantized(group_size, bits)
