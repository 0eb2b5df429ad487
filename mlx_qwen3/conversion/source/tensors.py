"""Tensors of a source checkpoint, read a few rows at a time in whatever format they are stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.matmul import dequantize_fp32
from mlx_qwen3.backend.safetensors_io import DTYPES
from mlx_qwen3.checkpoint.packed.stored_rows import BIT_PATTERNS as BIT_PATTERNS
from mlx_qwen3.checkpoint.packed.stored_rows import read_stored_rows as read_stored_rows
from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.checkpoint.validation import stacked_name
from mlx_qwen3.model.config import Quantization


class SourceTensor(ABC):
    """A tensor that can be read as numbers. All its axes but the last count as rows."""

    name: str
    file: Path
    shape: tuple[int, ...]  # once read
    num_bytes: int  # as stored

    @property
    @abstractmethod
    def dtype(self) -> mx.Dtype:
        """The format of the numbers that `read` returns."""

    @abstractmethod
    def read(self, first: int, count: int) -> mx.array:
        """Rows `first` to `first + count`, (count, width). Raises CheckpointError."""

    def read_fp32(self, first: int, count: int) -> mx.array:
        """The same rows in fp32, for computing. Raises CheckpointError."""
        return self.read(first, count).astype(mx.float32)

    @property
    @abstractmethod
    def identity(self) -> list[Any]:
        """Name, place and format in its file, as JSON: equal for equal bytes of one version of the file."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is in."""
        return (self.file,)

    @property
    def size(self) -> int:
        return self.num_rows * self.shape[-1]

    @property
    def num_rows(self) -> int:
        return int(np.prod(self.shape[:-1], dtype=np.int64))

    @property
    def version(self) -> str:
        """Changes when the file does."""
        stat = self.file.stat()
        return f"{self.file.resolve()} {stat.st_size} {stat.st_mtime_ns}"


class PlainTensor(SourceTensor):
    """A tensor of a safetensors file, not quantized."""

    def __init__(self, tensor: StoredTensor):
        self.tensor = tensor
        self.name, self.file, self.shape = tensor.name, tensor.file, tensor.shape
        self.num_bytes = tensor.num_bytes

    @property
    def dtype(self) -> mx.Dtype:
        return DTYPES[self.tensor.dtype]

    def read(self, first: int, count: int) -> mx.array:
        return read_stored_rows(self.tensor, first, count)

    @property
    def identity(self) -> list[Any]:
        return [self.name, self.file.name, self.tensor.offset, self.tensor.dtype]


@dataclass(frozen=True)
class QuantizedParts:
    """The tensors MLX stores for a quantized matrix; only affine mode has biases."""

    weight: StoredTensor
    scales: StoredTensor
    biases: StoredTensor | None

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        return (self.weight, self.scales, self.biases) if self.biases else (self.weight, self.scales)


class QuantizedMatrix(SourceTensor):
    """A matrix quantized by MLX, dequantized as it is read."""

    def __init__(self, parts: QuantizedParts, quantization: Quantization):
        self.parts, self.quantization = parts, quantization
        self.name, self.file = parts.weight.name, parts.weight.file
        *rows, packed = parts.weight.shape
        self.shape = (*rows, packed * 32 // quantization.bits)
        self.num_bytes = sum(tensor.num_bytes for tensor in parts.tensors)

    @property
    def dtype(self) -> mx.Dtype:
        return DTYPES[self.parts.scales.dtype] if self.parts.biases else mx.bfloat16

    def read(self, first: int, count: int) -> mx.array:
        weight, scales, *rest = self.read_parts(first, count)
        biases = rest[0] if rest else None
        return mx.dequantize(weight, scales, biases, **self.quantization.mlx_arguments(), dtype=self.dtype)

    def read_fp32(self, first: int, count: int) -> mx.array:
        """The rows in fp32, not rounded to the checkpoint's 16 bits first. Raises CheckpointError."""
        return self.dequantize_fp32(self.read_parts(first, count))

    def dequantize_fp32(self, parts: Sequence[mx.array]) -> mx.array:
        """Packed weights, scales and perhaps biases of some rows -> (rows, width) in fp32."""
        weight, scales, *rest = parts
        return dequantize_fp32(weight, scales, rest[0] if rest else None, **self.quantization.mlx_arguments())

    def read_parts(self, first: int, count: int) -> list[mx.array]:
        """The rows as stored: packed weights, scales, and biases if there are any."""
        return [read_stored_rows(tensor, first, count) for tensor in self.parts.tensors]

    @property
    def identity(self) -> list[Any]:
        places = [(tensor.file.name, tensor.offset, tensor.dtype) for tensor in self.parts.tensors]
        return [self.name, places, self.quantization.mlx_arguments()]


def source_tensors(
    stored: Mapping[str, StoredTensor], quantization: Quantization | None
) -> dict[str, SourceTensor]:
    """The tensors of a checkpoint by name. The parts of a quantized matrix are one tensor."""
    return {
        name: _source_tensor(name, stored, quantization)
        for name in stored
        if name.rpartition(".")[2] not in ("scales", "biases")
    }


def _source_tensor(
    name: str, stored: Mapping[str, StoredTensor], quantization: Quantization | None
) -> SourceTensor:
    path = name.rpartition(".")[0]
    scales = stored.get(f"{path}.scales")
    layer = quantization.for_layer(stacked_name(name).rpartition(".")[0]) if quantization else None
    if scales is None or layer is None:
        return PlainTensor(stored[name])
    return QuantizedMatrix(QuantizedParts(stored[name], scales, stored.get(f"{path}.biases")), layer)


class StackedTensor(SourceTensor):
    """The matrices of all experts as one tensor, stacked along a new first axis."""

    def __init__(self, name: str, experts: Sequence[SourceTensor]):
        self.name, self.experts = name, tuple(experts)
        self.file = experts[0].file
        self.shape = (len(experts), *experts[0].shape)
        self.num_bytes = sum(expert.num_bytes for expert in experts)

    @property
    def dtype(self) -> mx.Dtype:
        return self.experts[0].dtype

    def read(self, first: int, count: int) -> mx.array:
        rows = self.experts[0].num_rows
        pieces = []
        while count:
            expert, start = divmod(first, rows)
            length = min(count, rows - start)
            pieces.append(self.experts[expert].read(start, length))
            first, count = first + length, count - length
        return pieces[0] if len(pieces) == 1 else mx.concatenate(pieces)

    @property
    def identity(self) -> list[Any]:
        return [expert.identity for expert in self.experts]


def parameter_tensor(name: str, tensors: Mapping[str, SourceTensor], num_experts: int) -> SourceTensor:
    """The model's parameter `name` as one tensor, also where its experts are stored one by one."""
    stored = parameter_tensors(name, tensors, num_experts)
    return stored[0] if name in tensors else StackedTensor(name, stored)


def parameter_tensors(
    name: str, tensors: Mapping[str, SourceTensor], num_experts: int
) -> tuple[SourceTensor, ...]:
    """The stored tensors of the model's parameter `name`: one, or one for each expert."""
    if name in tensors:
        return (tensors[name],)
    return tuple(tensors[name.replace(".switch_mlp.", f".experts.{i}.")] for i in range(num_experts))
