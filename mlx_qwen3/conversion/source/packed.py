"""A matrix that another program quantized, dequantized or repacked for MLX as it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_qwen3.checkpoint.packed.matrix import PackedMatrix, PartReader
from mlx_qwen3.conversion.source.tensors import SourceTensor
from mlx_qwen3.model.config import Quantization


class PackedTensor(SourceTensor):
    """A matrix of an FP8, AWQ, GPTQ or compressed-tensors checkpoint.

    reader: shared by all of a checkpoint. commit: of the hub's repository that the files are in, if any.
    """

    def __init__(self, matrix: PackedMatrix, reader: PartReader, commit: str | None = None):
        self.matrix, self._reader, self._commit = matrix, reader, commit
        self.name, self.file, self.shape = matrix.name, matrix.main.file, matrix.shape
        self.num_bytes = matrix.num_bytes

    @property
    def dtype(self) -> mx.Dtype:
        return self.matrix.dtype

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(sorted({part.file for part in self.matrix.parts.values()}))

    def read(self, first: int, count: int) -> mx.array:
        return self.matrix.rows(self._reader, first, count)

    def can_be(self, quantization: Quantization) -> bool:
        """Whether MLX can hold it so without rounding anew."""
        own = self.matrix.quantization
        if own is None or (own.bits, own.mode) != (quantization.bits, quantization.mode):
            return False
        return own.group_size % quantization.group_size == 0

    def read_repacked(self, first: int, count: int, quantization: Quantization) -> tuple[mx.array, ...]:
        """Rows as MLX's packed weights, scales and biases (fp32). Raises CheckpointError."""
        return self.matrix.mlx_rows(self._reader, first, count, quantization)

    @property
    def identity(self) -> list[Any]:
        parts = sorted(self.matrix.parts.items())
        places = [(leaf, part.file.name, part.offset, part.dtype) for leaf, part in parts]
        return [self.name, places, type(self.matrix).__name__]

    @property
    def version(self) -> str:
        if self._commit is not None:
            return self._commit
        return " ".join(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in self.files)
