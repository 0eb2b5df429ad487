"""FirstKeys: the keys of a window's first tokens, moved along with the ring behind them.

Only differences of positions count in RoPE. Those among the tokens of the ring stay below its
length for ever, but the distance back to the first tokens grows without end, past anything the
model was trained on. So the first keys, kept as they came, are moved along: `stride` positions
further whenever the ring has moved that far, which leaves no token further away than the window and
a stride. The position a token is given when it comes does not depend on how the text was cut into
chunks. (Why not the other ways: docs/memory.md.)
"""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx

from mlx_qwen3.cache.buffers import Buffer
from mlx_qwen3.cache.rows import Rows, copied, join, length_of, take


class Rotation(Protocol):
    """What a cache needs of a model's rotary embedding to move keys it has rotated."""

    def shift(self, x: mx.array, by: int) -> mx.array:
        """Rotated rows (B, H, L, D), each `by` positions further on (back if negative)."""
        ...


class FirstKeys:
    """The first `keep` keys of a window of `max_size`, which are the first rows of `buffer`.

    stride: in which steps they are moved. rotation: without it they stay where they were.
    """

    def __init__(
        self, buffer: Buffer, keep: int, max_size: int, stride: int, rotation: Rotation | None
    ) -> None:
        self.keep, self.max_size, self.stride, self.rotation = keep, max_size, stride, rotation
        self._buffer = buffer
        self._original: Rows | None = None  # as they came, while the buffer's are moved
        self._shift = 0  # by how much the buffer's are moved

    def follow(self, position: int) -> None:
        """Have the buffer hold them where the token at `position` sees them."""
        self._move(self._shift_at(position))

    def move_back(self) -> None:
        """Have the buffer hold them as they came."""
        self._move(0)

    def as_they_came(self, keys: Rows) -> Rows:
        """All of the buffer's `keys`, with the first ones as they came."""
        if self._original is None:
            return keys
        return join([self._original, take(keys, self.keep, length_of(keys))])

    def shifts(self, start: int, length: int) -> list[int]:
        """How far they are moved for `length` tokens from `start` on, each distance once."""
        if self.keep == 0:
            return []
        return list(range(self._shift_at(start), self._shift_at(start + length - 1) + 1, self.stride))

    def mask(self, start: int, length: int) -> mx.array:
        """(L, shifts * keep): which of them each of `length` tokens from `start` on sees, once for each
        of `shifts`: at one of the shifts, and there those that are not yet to come."""
        queries = mx.arange(start, start + length)[:, None]
        shifts = mx.array(self.shifts(start, length))
        seen = mx.array([self._shift_at(position) for position in range(start, start + length)])
        chosen = mx.repeat(seen[:, None] == shifts, self.keep, axis=1)
        return chosen & (mx.tile(mx.arange(self.keep), len(shifts)) <= queries)

    def moved(self, keys: Rows, by: int) -> Rows:
        """Any encoded keys, `by` positions further on (back if negative)."""
        if by == 0 or self.rotation is None:
            return keys
        return self._buffer.encode(self.rotation.shift(self._buffer.decode(keys), by))

    def _shift_at(self, position: int) -> int:
        """How far they are moved for the token at `position`."""
        if self.rotation is None or self.keep == 0:
            return 0
        return max(0, position + 1 - self.max_size) // self.stride * self.stride

    def _move(self, shift: int) -> None:
        if shift == self._shift:
            return
        if self._original is None:
            self._original = copied(self._buffer.read(0, self.keep))
        self._buffer.write(self.moved(self._original, shift), 0)
        self._shift = shift
        if shift == 0:
            self._original = None
