"""Snapshots: copies of sliding windows to roll back to, and the memory budget they share."""

from __future__ import annotations

import weakref
from typing import NamedTuple, Protocol

from mlx_qwen3.cache.layers import CacheLayers


class Snapshot(NamedTuple):
    """Copies of all layers, and the ids that had been fed by then."""

    ids: list[int]
    layers: CacheLayers


class SnapshotHolder(Protocol):
    """What may hold one snapshot: a PromptCache."""

    @property
    def snapshot_nbytes(self) -> int:
        """Bytes of the snapshot; 0 without one."""

    def drop_snapshot(self) -> None: ...


class SnapshotBudget:
    """At most `limit` bytes of snapshots for many conversations; the latest are kept. Not thread-safe."""

    def __init__(self, limit: int):
        self.limit = limit
        self._holders: list[weakref.ref[SnapshotHolder]] = []  # latest last

    def reserve(self, holder: SnapshotHolder, num_bytes: int) -> bool:
        """Drop the oldest snapshots until `holder` may have one of `num_bytes`.

        False, and nothing is dropped, if that is more than the whole budget.
        """
        if num_bytes > self.limit:
            return False
        living = [other for ref in self._holders if (other := ref()) is not None]
        holders = [other for other in living if other is not holder and other.snapshot_nbytes]
        while holders and num_bytes + sum(other.snapshot_nbytes for other in holders) > self.limit:
            holders.pop(0).drop_snapshot()
        self._holders = [weakref.ref(other) for other in [*holders, holder]]
        return True
