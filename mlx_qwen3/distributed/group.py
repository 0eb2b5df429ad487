"""The ranks that run one model together, and the collectives between them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_qwen3.errors import DistributedError

# What launchers set for the rank of a process: MLX's own (ring, JACCL, NCCL), Open MPI, and other MPIs.
RANK_VARIABLES = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


def rank_of_process() -> int | None:
    """The rank that the launcher gave this process; None if it was not launched as one of several."""
    for name in RANK_VARIABLES:
        if (value := os.environ.get(name, "")).isdigit():
            return int(value)
    return None


@dataclass
class Group:
    """All ranks. `sent` counts the bytes that this rank's collectives send around a ring."""

    ranks: Any
    rank: int
    size: int
    sent: float = 0.0

    @classmethod
    def join(cls) -> Group:
        """Meet the other ranks; waits for them. Raises DistributedError if there are none."""
        try:
            ranks = mx.distributed.init(strict=True)
        except RuntimeError as error:
            raise DistributedError(
                f"this process was not started as one of several ({error}); start it with mlx.launch, or "
                "give the machines"
            ) from None
        return cls(ranks, ranks.rank(), ranks.size())

    def all_sum(self, x: mx.array) -> mx.array:
        """The sum of every rank's `x`; bit for bit the same on all."""
        self.sent += 2 * x.nbytes * (self.size - 1) / self.size
        return mx.distributed.all_sum(x, group=self.ranks)

    def all_gather(self, x: mx.array) -> mx.array:
        """Every rank's `x` (1, ...) -> (size, ...)."""
        self.sent += x.nbytes * (self.size - 1)
        return mx.distributed.all_gather(x, group=self.ranks)

    def send(self, x: mx.array, to: int) -> mx.array:
        """Send `x` once the result is evaluated."""
        self.sent += x.nbytes
        return mx.distributed.send(x, to, group=self.ranks)

    def receive(self, shape: tuple[int, ...], dtype: mx.Dtype, source: int) -> mx.array:
        """What `source` sends, once the result is evaluated."""
        return mx.distributed.recv(shape, dtype, source, group=self.ranks)
