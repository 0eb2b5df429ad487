"""RollbackLog: the rows that the latest tokens overwrote in a ring, to write back when those are trimmed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mlx_qwen3.cache.rows import Rows, take


class OverwrittenRows(NamedTuple):
    """Rows that were in the slots of the tokens at positions `start` up to `stop`."""

    start: int
    stop: int
    keys: Rows
    values: Rows

    def part(self, start: int, stop: int) -> OverwrittenRows:
        """Only the rows for positions `start` up to `stop`."""
        inner = start - self.start, stop - self.start
        return OverwrittenRows(start, stop, take(self.keys, *inner), take(self.values, *inner))


class RollbackLog:
    """The rows overwritten by the latest `limit` tokens, in the order of the writes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._writes: list[OverwrittenRows] = []

    @property
    def start(self) -> int | None:
        """The lowest position to roll back to; None for an empty log."""
        return self._writes[0].start if self._writes else None

    def record(self, write: OverwrittenRows) -> None:
        """Append a write, and drop rows older than the latest `limit`."""
        self._writes.append(write)
        oldest = write.stop - self.limit
        while self._writes and self._writes[0].start < oldest:
            first = self._writes.pop(0)
            if first.stop > oldest:
                self._writes.insert(0, first.part(oldest, first.stop))

    def clear(self) -> None:
        self._writes.clear()

    def roll_back(self, position: int) -> list[OverwrittenRows]:
        """Remove the writes from `position` on; returns the rows to write back, in this order."""
        undone = []
        while self._writes and self._writes[-1].stop > position:
            write = self._writes.pop()
            if write.start < position:
                self._writes.append(write.part(write.start, position))
                write = write.part(position, write.stop)
            undone.append(write)
        return undone

    def shift_positions(self, by: int, shift_keys: Callable[[Rows], Rows]) -> None:
        """Add `by` to every position; `shift_keys` rotates the keys to match."""
        self._writes = [
            OverwrittenRows(write.start + by, write.stop + by, shift_keys(write.keys), write.values)
            for write in self._writes
        ]
