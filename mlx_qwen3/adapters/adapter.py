"""Adapter: low-rank updates of a model's matrices, whichever program trained them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_qwen3.errors import CheckpointError


@dataclass(frozen=True)
class LowRank:
    """The update of one matrix W (out, in): W + scale * B A (LoRA, https://arxiv.org/abs/2106.09685).

    Attributes:
        a: A, (rank, in); for the matrices of experts (experts, rank, in).
        b: B, (out, rank) or (experts, out, rank).
        scale: alpha / rank, or what takes its place.
        magnitude: The length that each row has in the end, (out,), of DoRA
            (https://arxiv.org/abs/2402.09353); None for LoRA.
    """

    a: mx.array
    b: mx.array
    scale: float
    magnitude: mx.array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix that it is for."""
        return (*self.b.shape[:-1], self.a.shape[-1])


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, read and checked.

    Attributes:
        folder: Where it is.
        updates: By the path of the module, such as `model.layers.0.self_attn.q_proj`.
        digest: Of all its numbers and settings.
    """

    folder: Path
    updates: Mapping[str, LowRank]
    digest: str

    @property
    def num_bytes(self) -> int:
        return sum(update.a.nbytes + update.b.nbytes for update in self.updates.values())

    def check(self, shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
        """Raise CheckpointError unless it is for the model whose matrices have these shapes.

        shapes: by module path. name: what the user calls the model.
        """
        for path, update in self.updates.items():
            if path not in shapes:
                raise CheckpointError(
                    f"{self.folder} adapts {path}, which {name} does not have; it was made for another model"
                )
            if update.shape != shapes[path]:
                raise CheckpointError(
                    f"{self.folder} adapts {path} as a matrix of {list(update.shape)}, but in {name} it is "
                    f"{list(shapes[path])}; it was made for another model"
                )
