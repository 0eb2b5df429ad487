"""A source checkpoint with an adapter fused into it: W + scale * B A, computed as rows are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_qwen3.adapters.adapter import Adapter, LowRank
from mlx_qwen3.adapters.read import read_adapter
from mlx_qwen3.checkpoint.validation import stacked_name
from mlx_qwen3.conversion.source.original import SourceCheckpoint
from mlx_qwen3.conversion.source.tensors import SourceTensor


class AdaptedTensor(SourceTensor):
    """A matrix with its update.

    update: its A and B have as many axes as the matrix: three for the experts of a layer in one tensor.
    """

    def __init__(self, tensor: SourceTensor, update: LowRank, digest: str):
        self.tensor, self._update, self._digest = tensor, update, digest
        self.name, self.file, self.shape = tensor.name, tensor.file, tensor.shape
        self.num_bytes = tensor.num_bytes

    @property
    def dtype(self) -> mx.Dtype:
        return self.tensor.dtype

    @property
    def files(self) -> tuple[Path, ...]:
        return self.tensor.files

    def read(self, first: int, count: int) -> mx.array:
        """Rows in fp32: the update is added before they are rounded. Raises CheckpointError."""
        rows = self.tensor.read_fp32(first, count)
        update = self._update
        b = update.b.reshape(-1, update.b.shape[-1])[first : first + count].astype(
            mx.float32
        )  # (count, rank)
        a = update.a.astype(mx.float32)
        if a.ndim == 2:
            rows = rows + update.scale * (b @ a)
        else:  # rows of several experts, each with its own A
            experts = mx.arange(first, first + count) // self.shape[1]
            rows = rows + update.scale * mx.gather_mm(b[:, None], a, rhs_indices=experts)[:, 0]
        if update.magnitude is None:
            return rows
        magnitude = update.magnitude[first : first + count].astype(mx.float32)
        return rows * (magnitude / mx.linalg.norm(rows, axis=1))[:, None]

    @property
    def identity(self) -> list[Any]:
        return [self.tensor.identity, self._digest]

    @property
    def version(self) -> str:
        return self.tensor.version


def with_adapter(source: SourceCheckpoint, folder: str | Path) -> SourceCheckpoint:
    """`source` with the adapter in `folder` fused. Raises CheckpointError if it is for another model."""
    adapter = read_adapter(folder)
    adapter.check(_shapes(source), str(source.path))
    tensors = {name: _adapted(tensor, adapter) for name, tensor in source.tensors.items()}
    return replace(source, tensors=tensors, adapter=str(adapter.folder))


def _shapes(source: SourceCheckpoint) -> dict[str, tuple[int, ...]]:
    """The shapes of the model's matrices by module path; those of a layer's experts as one."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in source.tensors.items():
        path, _, leaf = stacked_name(name).rpartition(".")
        if leaf != "weight" or path == "model.embed_tokens" or (path == "lm_head" and not _has_head(source)):
            continue
        is_expert = path != name.rpartition(".")[0]
        shapes[path] = (source.config.num_experts, *tensor.shape) if is_expert else tensor.shape
    return shapes


def _has_head(source: SourceCheckpoint) -> bool:
    return source.config.has_own_head


def _adapted(tensor: SourceTensor, adapter: Adapter) -> SourceTensor:
    path = stacked_name(tensor.name).rpartition(".")[0]
    update = adapter.updates.get(path)
    if update is None:
        return tensor
    if update.a.ndim == 3 and len(tensor.shape) == 2:  # one expert
        index = int(tensor.name.partition(".experts.")[2].partition(".")[0])
        update = replace(update, a=update.a[index], b=update.b[index])
        mx.eval(update.a, update.b)  # rows are read by several threads
    return AdaptedTensor(tensor, update, adapter.digest)
