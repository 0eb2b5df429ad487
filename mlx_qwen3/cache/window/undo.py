"""What the latest tokens of a ring pushed out, kept for as long as those tokens may be taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.rows import Rows, take
from mlx_qwen3.errors import CacheError


def take_back(cache: Sequence[Cache], count: int) -> None:
    """Take the latest `count` tokens back from every layer. Raises CacheError if one cannot."""
    for layer in cache if count else ():
        if layer.trim(count) != count:
            raise CacheError(f"{count} tokens cannot be taken back from a cache of {layer.tokens}")


class Overwritten(NamedTuple):
    """Rows that stood in the slots of the tokens from position `start` up to `stop`."""

    start: int
    stop: int
    keys: Rows
    values: Rows

    def part(self, start: int, stop: int) -> Overwritten:
        """Those of the tokens from `start` up to `stop` alone."""
        inner = start - self.start, stop - self.start
        return Overwritten(start, stop, take(self.keys, *inner), take(self.values, *inner))


class Undo:
    """A journal of writes, newest last, of `limit` rows at most."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._writes: list[Overwritten] = []

    @property
    def start(self) -> int | None:
        """The position from which on tokens can be taken back; None if none can."""
        return self._writes[0].start if self._writes else None

    def record(self, write: Overwritten) -> None:
        """Remember one more write. The oldest that are then too many are forgotten."""
        self._writes.append(write)
        oldest = write.stop - self.limit
        while self._writes and self._writes[0].start < oldest:
            first = self._writes.pop(0)
            if first.stop > oldest:
                self._writes.insert(0, first.part(oldest, first.stop))

    def clear(self) -> None:
        self._writes.clear()

    def take_back(self, position: int) -> list[Overwritten]:
        """Forget the writes from `position` on; returns what they overwrote, newest first."""
        taken = []
        while self._writes and self._writes[-1].stop > position:
            write = self._writes.pop()
            if write.start < position:
                self._writes.append(write.part(write.start, position))
                write = write.part(position, write.stop)
            taken.append(write)
        return taken

    def move(self, by: int, shift_keys: Callable[[Rows], Rows]) -> None:
        """Positions are counted anew: all are `by` further on, and keys are turned by `shift_keys`."""
        self._writes = [
            Overwritten(write.start + by, write.stop + by, shift_keys(write.keys), write.values)
            for write in self._writes
        ]
