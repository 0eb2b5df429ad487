"""Tensors to be converted, read a few rows at a time whatever form they are stored in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.backend.matmul import dequantize_fp32
from mlx_qwen3.backend.safetensors_io import DTYPES
from mlx_qwen3.checkpoint.safetensors_files import StoredTensor
from mlx_qwen3.checkpoint.validation import stacked_name
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import Quantization

# numpy has no bfloat16, so numbers travel as bit patterns of their size.
BIT_PATTERNS = {1: (np.uint8, mx.uint8), 2: (np.uint16, mx.uint16), 4: (np.uint32, mx.uint32)}


class Source(ABC):
    """A tensor of numbers. `shape` is what it is once read, `num_bytes` what it takes where it is stored."""

    name: str
    file: Path
    shape: tuple[int, ...]
    num_bytes: int

    @property
    @abstractmethod
    def dtype(self) -> mx.Dtype:
        """The format of the numbers read."""

    @abstractmethod
    def read(self, first: int, count: int) -> mx.array:
        """Rows `first` to `first + count` as a matrix; all axes but the last count as rows.

        Raises CheckpointError.
        """

    def read_fp32(self, first: int, count: int) -> mx.array:
        """The same in fp32, as it is to be computed with. Raises CheckpointError."""
        return self.read(first, count).astype(mx.float32)

    @property
    @abstractmethod
    def described(self) -> list[Any]:
        """What tells these bytes from others of the same file."""

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


class PlainTensor(Source):
    """A tensor of a safetensors file, as it is."""

    def __init__(self, tensor: StoredTensor):
        self.tensor = tensor
        self.name, self.file, self.shape = tensor.name, tensor.file, tensor.shape
        self.num_bytes = tensor.num_bytes

    @property
    def dtype(self) -> mx.Dtype:
        return DTYPES[self.tensor.dtype]

    def read(self, first: int, count: int) -> mx.array:
        return read_rows_of(self.tensor, first, count)

    @property
    def described(self) -> list[Any]:
        return [self.name, self.file.name, self.tensor.offset, self.tensor.dtype]


@dataclass(frozen=True)
class QuantizedParts:
    """The tensors MLX stores for a quantized matrix; only affine modes have biases."""

    weight: StoredTensor
    scales: StoredTensor
    biases: StoredTensor | None

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        return (self.weight, self.scales, self.biases) if self.biases else (self.weight, self.scales)


class QuantizedMatrix(Source):
    """A matrix of a checkpoint that MLX quantized, dequantized as it is read."""

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
        return self.dequantize(self.read_parts(first, count))

    def read_fp32(self, first: int, count: int) -> mx.array:
        return self.dequantize_fp32(self.read_parts(first, count))

    def dequantize_fp32(self, parts: Sequence[mx.array]) -> mx.array:
        """The numbers that rows as stored stand for, not rounded to 16 bits once more."""
        weight, scales, *biases = parts
        return dequantize_fp32(
            weight, scales, biases[0] if biases else None, **self.quantization.mlx_arguments()
        )

    def dequantize(self, parts: Sequence[mx.array]) -> mx.array:
        """The same as numbers of the checkpoint's format."""
        weight, scales, *biases = parts
        return mx.dequantize(
            weight,
            scales,
            biases[0] if biases else None,
            **self.quantization.mlx_arguments(),
            dtype=self.dtype,
        )

    def read_parts(self, first: int, count: int) -> list[mx.array]:
        """The same rows as they are stored: packed weights, scales, and biases if there are any."""
        return [read_rows_of(tensor, first, count) for tensor in self.parts.tensors]

    @property
    def described(self) -> list[Any]:
        places = [(tensor.file.name, tensor.offset, tensor.dtype) for tensor in self.parts.tensors]
        return [self.name, places, self.quantization.mlx_arguments()]


def sources_of(stored: Mapping[str, StoredTensor], quantization: Quantization | None) -> dict[str, Source]:
    """What can be read of a checkpoint's tensors: each by name, parts of a quantized matrix as one."""
    return {name: _source(name, stored, quantization) for name in _parameters(stored)}


def _parameters(stored: Mapping[str, StoredTensor]) -> Iterable[str]:
    return (name for name in stored if name.rpartition(".")[2] not in ("scales", "biases"))


def _source(name: str, stored: Mapping[str, StoredTensor], quantization: Quantization | None) -> Source:
    path = name.rpartition(".")[0]
    scales = stored.get(f"{path}.scales")
    layer = quantization.for_layer(stacked_name(name).rpartition(".")[0]) if quantization else None
    if scales is None or layer is None:
        return PlainTensor(stored[name])
    return QuantizedMatrix(QuantizedParts(stored[name], scales, stored.get(f"{path}.biases")), layer)


def read_rows_of(tensor: StoredTensor, first: int, count: int) -> mx.array:
    """Rows of a tensor as it is stored; all its axes but the last count as rows. Raises CheckpointError."""
    width = tensor.shape[-1]
    dtype = DTYPES[tensor.dtype]
    numpy_pattern, pattern = BIT_PATTERNS[dtype.size]
    if is_cpu():  # straight into MLX's memory, with no copy and no lock held
        rows = mx.zeros((count, width), pattern)
        mx.eval(rows)
        _read_into(np.asarray(rows), tensor, first * width * dtype.size)
    else:
        values = np.empty((count, width), numpy_pattern)
        _read_into(values, tensor, first * width * dtype.size)
        rows = mx.array(values)
    return rows.view(dtype)


def _read_into(values: np.ndarray[Any, Any], tensor: StoredTensor, start: int) -> None:
    """Fill `values` with bytes of `tensor` from `start` on."""
    try:
        with tensor.file.open("rb") as file:
            file.seek(tensor.offset + start)
            num_bytes = file.readinto(memoryview(values).cast("B"))  # type: ignore[arg-type]
    except OSError as error:
        raise CheckpointError(f"{tensor.file} could not be read: {error.strerror or error}") from error
    if num_bytes < values.nbytes:
        raise CheckpointError(f"{tensor.file} ends within {tensor.name}; download it again")


class Stack(Source):
    """The matrices of all experts, one after the other along a first axis."""

    def __init__(self, name: str, parts: Sequence[Source]):
        self.name, self.parts = name, tuple(parts)
        self.file = parts[0].file
        self.shape = (len(parts), *parts[0].shape)
        self.num_bytes = sum(part.num_bytes for part in parts)

    @property
    def dtype(self) -> mx.Dtype:
        return self.parts[0].dtype

    def read(self, first: int, count: int) -> mx.array:
        rows = self.parts[0].num_rows
        pieces = []
        while count:
            expert, start = divmod(first, rows)
            length = min(count, rows - start)
            pieces.append(self.parts[expert].read(start, length))
            first, count = first + length, count - length
        return pieces[0] if len(pieces) == 1 else mx.concatenate(pieces)

    @property
    def described(self) -> list[Any]:
        return [part.described for part in self.parts]


def parameter(name: str, sources: Mapping[str, Source], num_experts: int) -> Source:
    """The model's parameter `name`, whether its experts are stored as a stack or one by one."""
    parts = parts_of(name, sources, num_experts)
    return parts[0] if name in sources else Stack(name, parts)


def parts_of(name: str, sources: Mapping[str, Source], num_experts: int) -> tuple[Source, ...]:
    """The tensors the model's parameter `name` is made of: one, or one an expert."""
    if name in sources:
        return (sources[name],)
    return tuple(sources[name.replace(".switch_mlp.", f".experts.{i}.")] for i in range(num_experts))
