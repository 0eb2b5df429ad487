"""Ring: which slot of a window holds which token, and what each token sees there.

The first `keep` slots hold the first tokens; the others are a ring in which a token takes the slot
of the oldest. Attention does not mind the order of rows: a key carries its position in its rotation.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_qwen3.cache.buffers import Buffer
from mlx_qwen3.cache.rows import Rows, join, length_of, take


class Ring:
    """The slots of a window of `max_size` tokens, the first `keep` of which never leave theirs."""

    def __init__(self, keep: int, max_size: int) -> None:
        self.keep, self.max_size = keep, max_size
        self._turn = 0

    @property
    def size(self) -> int:
        """Slots of the ring: how many tokens a token sees beyond the first ones, itself included."""
        return self.max_size - self.keep

    def slot(self, position: int) -> int:
        """Where the token of `position` is held, which is not a first one."""
        return self.keep + (position - self.keep + self._turn) % self.size

    def next_slot(self, offset: int) -> int:
        """The slot that is written next; while there is room, it is the one behind the last."""
        return offset if offset <= self.max_size else self.slot(offset)

    def turn(self, by: int) -> None:
        """Positions are `by` smaller than they were, and every token stays in its slot."""
        self._turn = (self._turn + by) % self.size

    def turn_to(self, position: int, slot: int) -> None:
        """Have `slot` be that of `position`; one behind the last is the first of the ring."""
        self._turn = ((slot if slot < self.max_size else self.keep) - position) % self.size

    def straighten(self) -> None:
        """Have each position in the slot of its own number, as at the start."""
        self._turn = 0

    def read(self, buffer: Buffer, start: int, length: int) -> Rows:
        """The rows in the slots of the positions from `start` on, no more than the ring has."""
        slot = self.slot(start)
        before_end = min(length, self.max_size - slot)
        parts = [
            buffer.read(slot, slot + before_end),
            buffer.read(self.keep, self.keep + length - before_end),
        ]
        return join(parts)

    def write(self, buffer: Buffer, rows: Rows, start: int) -> None:
        """Put what stays of rows from position `start` on: first tokens, and the latest around the ring."""
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
        """Have `buffer` hold `rows` as saved after `offset` tokens, in room for the whole window."""
        buffer.hold(rows)
        size = buffer.capacity
        if size > self.max_size:  # mlx-lm keeps a chunk's surplus, in order of time
            buffer.hold(join([buffer.read(0, self.keep), buffer.read(size - self.size, size)]))
        elif size < self.max_size:
            held = min(offset, size)
            buffer.reserve(self.max_size, buffer.read(0, held), used=held)

    def mask(self, start: int, length: int) -> mx.array:
        """(L, rows): which tokens of the ring each of the `length` from `start` on sees.

        Rows are first those held, in the order of slots, then the new ones.
        """
        queries = mx.arange(start, start + length)[:, None]
        others = mx.concatenate([self._positions(start), mx.arange(max(start, self.keep), start + length)])
        return (others <= queries) & (others > queries - self.size)

    def _positions(self, offset: int) -> mx.array:
        """The position of the token in each used slot of the ring after `offset` tokens."""
        if offset <= self.max_size:
            return mx.arange(self.keep, max(offset, self.keep))
        slots = mx.arange(self.keep, self.max_size)
        latest = offset - 1
        return latest - (self.slot(latest) - slots) % self.size
