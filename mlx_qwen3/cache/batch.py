"""BatchKVCache: several texts of different lengths, decoded together.

Row b of the batch fills its own places from 0 to lengths[b]; what lies behind them is never looked
at. So a text stands at the same places as it would alone, a row that joins or leaves moves no other,
and prompts can be read together, padded at their ends, with nothing hidden but the future. (mlx-lm
pads at the front, and copies every row whenever one comes or goes.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from mlx_qwen3.cache.buffers import Buffer, DenseBuffer, QuantizedBuffer
from mlx_qwen3.cache.kv import KVCache, StoredCache
from mlx_qwen3.cache.rows import Rows, each, length_of
from mlx_qwen3.errors import CacheError


class BatchKVCache(StoredCache):
    """The keys and values of one layer for the texts of a batch, plain or quantized.

    bits, group_size: as of QuantizedKVCache; None stores rows as they come. Starts without rows:
    `extend` takes them in.
    """

    # The unit that room for tokens is rounded to.
    step = 256

    def __init__(self, bits: int | None = None, group_size: int = 64) -> None:
        self._keys, self._values = (
            DenseBuffer() if bits is None else QuantizedBuffer(group_size, bits) for _ in range(2)
        )
        self.lengths: list[int] = []
        """Tokens held of each text."""

    @property
    def offset(self) -> mx.array:  # type: ignore[override]  # one for each text
        """The position of each text's next token, (B,)."""
        return mx.array(self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens of the longest text."""
        return max(self.lengths, default=0)

    def extend(self, other: KVCache, lengths: Sequence[int]) -> None:
        """Take in the rows of `other`, which stores in the same format: of row i the first lengths[i] tokens.

        `other` is not changed, and shares no memory with this cache afterwards.
        """
        held, longest = len(self.lengths), max(lengths)
        for buffer, rows in ((self._keys, other.keys), (self._values, other.values)):
            assert rows is not None
            new = _cut(rows, longest)
            if buffer.rows is None:
                buffer.rows = each(lambda array: array[:0], new)
            self._fit(buffer, held + len(lengths), max(self.tokens, longest))
            _put(buffer, new, held)
        self.lengths = [*self.lengths, *lengths]

    def filter(self, keep: Sequence[int]) -> None:
        """Keep the rows of these numbers, in this order. One that stays in its place is not copied."""
        for buffer in self._both:
            moved = {to: self._copy(buffer, row) for to, row in enumerate(keep) if to != row}
            # Now: a room that is still to be read from could not be written in place.
            mx.eval(list(moved.values()))
            for to, rows in moved.items():
                _put(buffer, rows, to)
        self.lengths = [self.lengths[row] for row in keep]
        for buffer in self._both if keep else ():
            self._fit(buffer, len(keep), self.tokens)

    def _copy(self, buffer: Buffer, row: int) -> Rows:
        # Multiplied to be a copy: a view would hold on to the whole room.
        return each(lambda room: room[row : row + 1, :, : self.lengths[row]] * 1, _room(buffer))

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Rows, Rows]:
        """Append keys and values (B, H, L, D) to all texts; return all, (B, H, S + L, D) for S the longest.

        Raises CacheError unless B is the number of texts held.
        """
        count, _, length, _ = keys.shape
        if count != len(self.lengths):
            raise CacheError(f"the cache holds a batch of {len(self.lengths)} texts, not {count}")
        places = (self.offset[:, None] + mx.arange(length))[:, None, :, None]  # (B, 1, L, 1)
        for buffer, rows in zip(self._both, (keys, values), strict=True):
            self._fit(buffer, count, self.tokens + length)
            buffer.rows = each(_writer(places), _room(buffer), buffer.encode(rows))
        self.lengths = [held + length for held in self.lengths]
        return self._held(self._keys), self._held(self._values)

    def _held(self, buffer: Buffer) -> Rows:
        return each(lambda room: room[: len(self.lengths), :, : self.tokens], _room(buffer))

    def _fit(self, buffer: Buffer, count: int, tokens: int) -> None:
        """Make room for `count` texts of `tokens` tokens, and give back most of what is far too much."""
        height, capacity = _size(buffer)
        if tokens > capacity:  # by a quarter more, as KVCache
            capacity = -(-max(tokens, capacity + capacity // 4) // self.step) * self.step
        elif 2 * tokens + self.step < capacity:
            capacity = -(-tokens // self.step) * self.step
        if not count <= height < 2 * count:
            height = count
        if (height, capacity) == _size(buffer):
            return
        held, longest = min(len(self.lengths), count), min(self.tokens, tokens)

        def resize(room: mx.array) -> mx.array:
            return mx.pad(
                room[:held, :, :longest], [(0, height - held), (0, 0), (0, capacity - longest), (0, 0)]
            )

        buffer.rows = each(resize, _room(buffer))

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """Who may look where, (B, L, S + L), of `length` new tokens of each text."""
        if window_size is None and len(set(self.lengths)) == 1:
            if length == 1:
                return None
            if not return_array:
                return "causal"
        queries = (self.offset[:, None] + mx.arange(length))[:, :, None]
        keys = mx.arange(self.tokens + length)
        mask = queries >= keys
        return mask if window_size is None else mask & (queries < keys + window_size)

    @property
    def state(self) -> tuple[Any, ...]:
        """Keys and values held, (B, H, S, D) with S the longest text's, or None; the lengths."""
        held = (None, None) if self.empty() else (self._held(self._keys), self._held(self._values))
        return (*held, list(self.lengths))

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        keys, values, self.lengths = value
        self._keys.hold(keys)
        self._values.hold(values)

    def is_trimmable(self) -> bool:
        return True

    def keep_undo(self, rows: int) -> int:
        """Nothing to do: every token can be taken back."""
        return rows

    def undoable(self) -> int:
        return min(self.lengths, default=0)

    def trim(self, n: int) -> int:
        """Forget the latest tokens of every text, as many of each; return how many."""
        n = max(0, min(n, self.undoable()))
        self.lengths = [held - n for held in self.lengths]
        return n

    @property
    def _both(self) -> tuple[Buffer, Buffer]:
        return self._keys, self._values


def _room(buffer: Buffer) -> Rows:
    assert buffer.rows is not None
    return buffer.rows


def _size(buffer: Buffer) -> tuple[int, int]:
    """Texts and tokens that there is room for."""
    rows = _room(buffer)
    return (rows if isinstance(rows, mx.array) else rows[0]).shape[0], length_of(rows)


def _cut(rows: Rows, length: int) -> Rows:
    return each(lambda array: array[:, :, :length], rows)


def _put(buffer: Buffer, rows: Rows, start: int) -> None:
    """Write rows (B, H, L, D), from the room's row `start` on."""

    def put(room: mx.array, new: mx.array) -> mx.array:
        room[start : start + new.shape[0], :, : new.shape[2]] = new
        return room

    each(put, _room(buffer), rows)


def _writer(places: mx.array) -> Callable[[mx.array, mx.array], mx.array]:
    """Writes row b's new tokens at places[b], (B, 1, L, 1): in place where nothing else holds the memory."""

    def write(room: mx.array, new: mx.array) -> mx.array:
        # Room without a text takes what it is given: it means nothing.
        spare = [(0, room.shape[0] - new.shape[0]), (0, 0), (0, 0), (0, 0)]
        return mx.put_along_axis(room, mx.pad(places, spare), mx.pad(new, spare), axis=2)

    return write
