"""Ring: maps the positions of a window's tokens to slots of its buffers.

The first `keep` slots hold the first tokens. The others are a ring, in which a new token takes the slot of
the oldest. Attention does not depend on the order of rows, as a key carries its position in its rotation.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_qwen3.cache.buffers import Buffer
from mlx_qwen3.cache.rows import Rows, join, length_of, take


class Ring:
    """The slots of a window of `max_size` tokens that keeps the first `keep`."""

    def __init__(self, keep: int, max_size: int) -> None:
        self.keep, self.max_size = keep, max_size
        self._turn = 0  # by how many slots the tokens are further round the ring than at the start

    @property
    def size(self) -> int:
        """Slots of the ring: how many tokens a token sees beside the first ones, itself included."""
        return self.max_size - self.keep

    def slot(self, position: int) -> int:
        """The slot of the token at `position`, from `keep` on."""
        return self.keep + (position - self.keep + self._turn) % self.size

    def next_slot(self, offset: int) -> int:
        """The slot to write next after `offset` tokens; the first unused one until the ring is full."""
        return offset if offset <= self.max_size else self.slot(offset)

    def lower_positions(self, by: int) -> None:
        """Positions are now `by` lower; every token stays in its slot."""
        self._turn = (self._turn + by) % self.size

    def align(self, position: int, slot: int) -> None:
        """Turn the ring so that `position` is in `slot`. The slot after the last is the ring's first."""
        self._turn = ((slot if slot < self.max_size else self.keep) - position) % self.size

    def reset(self) -> None:
        """Turn the ring to where it starts: each position in the slot of the same number."""
        self._turn = 0

    def read(self, buffer: Buffer, start: int, length: int) -> Rows:
        """The rows in the slots of `length` positions from `start` on, at most the ring's size."""
        slot = self.slot(start)
        before_end = min(length, self.max_size - slot)
        parts = [
            buffer.read(slot, slot + before_end),
            buffer.read(self.keep, self.keep + length - before_end),
        ]
        return join(parts)

    def write(self, buffer: Buffer, rows: Rows, start: int) -> None:
        """Write rows for positions from `start` on, except those that later ones would overwrite."""
        length = length_of(rows)
        if start < self.keep:
            buffer.write(take(rows, 0, self.keep - start), start)
        done = max(0, self.keep - start, length - self.size)
        while done < length:
            slot = self.slot(start + done)
            count = min(length - done, self.max_size - slot)
            buffer.write(take(rows, done, done + count), slot)
            done += count

    def hold(self, buffer: Buffer, rows: Any, offset: int) -> None:
        """Fill `buffer` with the `rows` of a state after `offset` tokens, at the window's capacity."""
        buffer.hold(rows)
        size = buffer.capacity
        if size > self.max_size:  # mlx-lm keeps all rows of the last chunk, in order of time
            buffer.hold(join([buffer.read(0, self.keep), buffer.read(size - self.size, size)]))
        elif size < self.max_size:
            used = min(offset, size)
            buffer.reserve(self.max_size, buffer.read(0, used), used=used)

    def mask(self, start: int, length: int) -> mx.array:
        """(L, rows): which tokens of the ring each of the `length` from `start` on sees.

        The rows held come first, in the order of slots, then the new ones.
        """
        queries = mx.arange(start, start + length)[:, None]
        keys = mx.concatenate([self._positions(start), mx.arange(max(start, self.keep), start + length)])
        return (keys <= queries) & (keys > queries - self.size)

    def _positions(self, offset: int) -> mx.array:
        """The positions of the tokens in the used slots of the ring after `offset` tokens."""
        if offset <= self.max_size:
            return mx.arange(self.keep, max(offset, self.keep))
        slots = mx.arange(self.keep, self.max_size)
        latest = offset - 1
        return latest - (self.slot(latest) - slots) % self.size
