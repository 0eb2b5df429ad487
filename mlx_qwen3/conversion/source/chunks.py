"""Walks through a tensor in chunks of rows, so that a few MB of it are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.conversion.source.tensors import BIT_PATTERNS, SourceTensor
from mlx_qwen3.conversion.workers import num_workers
from mlx_qwen3.errors import CheckpointError


def chunk_bytes() -> int:
    """The largest size of a chunk, 1 MB on a CPU and 32 MB on a GPU.

    On a CPU, what is computed from a chunk should fit the cache and reuse memory. Linux clears larger
    blocks each time they are allocated, which takes longer than quantizing them.
    """
    return (1 if is_cpu() else 32) * 2**20


def row_chunks(
    tensor: SourceTensor, first: int = 0, count: int | None = None, factor: int = 1
) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each chunk of a tensor, or of its `count` rows from `first` on.

    Chunks have one size, at most `factor` times `chunk_bytes`, and there is at least one for each worker.
    """
    count = tensor.num_rows if count is None else count
    largest = max(1, factor * chunk_bytes() // (tensor.shape[-1] * tensor.dtype.size))
    num_chunks = -(-count // largest)
    step = -(-count // (-(-num_chunks // num_workers()) * num_workers()))
    for start in range(first, first + count, step):
        yield start, min(step, first + count - start)


def read_chunks(tensor: SourceTensor) -> Iterator[mx.array]:
    """The chunks of a tensor, (rows, width) each. Raises CheckpointError, also for NaN and infinity."""
    for first, count in row_chunks(tensor):
        rows = tensor.read(first, count)
        refuse_not_finite(rows, tensor, tensor.dtype)
        yield rows


def refuse_not_finite(rows: mx.array, tensor: SourceTensor, dtype: mx.Dtype) -> None:
    """Raise CheckpointError if `rows` of `tensor` hold NaN or infinity, or would in `dtype`."""
    where = f"{tensor.file}: {tensor.name}"
    if not is_finite(rows):
        raise CheckpointError(f"{where} holds NaN or infinity; download it again")
    if dtype != rows.dtype and not is_finite(rows.astype(dtype)):
        name = str(dtype).rpartition(".")[2]
        raise CheckpointError(f"{where} holds numbers too large for {name}; use bfloat16")


def is_finite(rows: mx.array) -> bool:
    """Whether `rows` hold neither NaN nor infinity.

    As integers, magnitudes keep their order, and infinity and NaN are the largest. On a CPU this takes a
    quarter of the time of `mx.isfinite` on 16-bit numbers, which takes longer than quantizing them.
    """
    infinity = mx.array(mx.inf, rows.dtype)
    _, pattern = BIT_PATTERNS[rows.dtype.size]
    magnitude = (1 << (8 * rows.dtype.size - 1)) - 1
    return bool(((rows.view(pattern) & magnitude).max() < infinity.view(pattern)).item())


def to_bytes(array: mx.array) -> memoryview:
    """The bytes of `array`, which is computed now."""
    _, pattern = BIT_PATTERNS[array.dtype.size]
    values = np.asarray(array.view(pattern)).reshape(-1)
    return memoryview(values.view(np.uint8))  # type: ignore[arg-type]
