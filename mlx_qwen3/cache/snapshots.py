"""Places that windows can come back to, and the memory that an engine has for them."""

from __future__ import annotations

import weakref
from typing import NamedTuple, Protocol

from mlx_qwen3.cache.base import Cache


class Mark(NamedTuple):
    """A place to come back to: the ids fed up to it, and the layers as they were."""

    ids: list[int]
    layers: list[Cache]


class Marked(Protocol):
    """What may hold a mark."""

    @property
    def mark_nbytes(self) -> int:
        """Bytes of the mark; 0 without one."""

    def drop_mark(self) -> None:
        """Have none."""


class MarkRoom:
    """`limit` bytes for the marks of many conversations, of which the latest stay. For one thread alone."""

    def __init__(self, limit: int):
        self.limit = limit
        self._marked: list[weakref.ref[Marked]] = []  # latest last

    def admit(self, cache: Marked, num_bytes: int) -> bool:
        """Make room for a mark of `cache` that takes so many bytes. False if there is not so much at all."""
        if num_bytes > self.limit:
            return False
        marked = [one for ref in self._marked if (one := ref()) is not None and one is not cache]
        marked = [one for one in marked if one.mark_nbytes]
        while marked and num_bytes + sum(one.mark_nbytes for one in marked) > self.limit:
            marked.pop(0).drop_mark()
        self._marked = [weakref.ref(one) for one in [*marked, cache]]
        return True
