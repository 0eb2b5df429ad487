"""Runs the steps of a plan a few rows at a time, so that memory stays at some hundred MB."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.conversion.planning import Step
from mlx_qwen3.conversion.quantize.gptq import Moments, quantize_compensated
from mlx_qwen3.conversion.quantize.search import quantize_searched
from mlx_qwen3.conversion.source.tensors import BIT_PATTERNS, Source
from mlx_qwen3.conversion.workers import WORKERS, in_order
from mlx_qwen3.errors import CheckpointError

# On a CPU what is made of a chunk should fit the cache, and memory that was used before: blocks of several MB
# are handed back to Linux, which clears them anew each time, and that takes longer than to round them.
CHUNK_BYTES = (1 if is_cpu() else 32) * 2**20
# Chunks multiplied at once: BLAS rearranges what they are multiplied with each time.
PRODUCT_CHUNKS = 4 if is_cpu() else 1

Write = Callable[[str, memoryview], None]
"""(tensor name, its next bytes): tensors are written from front to back, several in turns."""


def run_step(
    step: Step, write: Write, on_bytes: Callable[[int], None], factors: Moments | None = None
) -> None:
    """Read, cast and quantize one parameter, and hand its bytes to `write`.

    Quantization looks at one group of a row at a time, so chunks of rows give what the whole matrix
    would. on_bytes: called with the bytes read of each chunk. Raises CheckpointError, also for NaN and
    infinities, which would spoil a whole group. factors: see `convert_rows`.
    """
    names = [output.name for output in step.outputs]
    for source in step.sources:

        def converted(chunk: tuple[int, int], source: Source = source) -> tuple[int, list[memoryview]]:
            rows = source.read(*chunk)
            refuse_not_finite(rows, source, step.dtype)
            return chunk[1], [to_bytes(array) for array in convert_rows(rows, step, factors)]

        for count, parts in in_order(converted, row_chunks(source)):
            on_bytes(source.num_bytes * count // source.num_rows)
            for name, data in zip(names, parts, strict=True):
                write(name, data)


def refuse_not_finite(rows: mx.array, source: Source, dtype: mx.Dtype) -> None:
    """Raise CheckpointError where `rows` of `source` are not numbers, or too large for `dtype`."""
    where = f"{source.file}: {source.name}"
    if not _is_finite(rows):
        raise CheckpointError(f"{where} holds NaN or infinity; download it again")
    if dtype != rows.dtype and not _is_finite(rows.astype(dtype)):
        format_ = str(dtype).rpartition(".")[2]
        raise CheckpointError(f"{where} holds numbers too large for {format_}; use bfloat16")


def _is_finite(rows: mx.array) -> bool:
    """Whether all are numbers. Read as integers, magnitudes keep their order; infinity and NaN come last.

    On a CPU four times as fast as `mx.isfinite` of 16-bit numbers, which takes longer than to quantize them.
    """
    infinity = mx.array(mx.inf, rows.dtype)
    _, pattern = BIT_PATTERNS[rows.dtype.size]
    magnitude = (1 << (8 * rows.dtype.size - 1)) - 1
    return bool(((rows.view(pattern) & magnitude).max() < infinity.view(pattern)).item())


def convert_rows(rows: mx.array, step: Step, factors: Moments | None = None) -> list[mx.array]:
    """A few rows of a parameter, as its outputs hold them.

    factors: of what the matrix is multiplied with, where a calibration has measured it.
    """
    rows = rows.astype(step.dtype)
    if step.quantization is None:
        return [rows]
    if step.searched and factors is not None:
        return list(quantize_compensated(rows, step.quantization, factors))
    if step.searched:
        return list(quantize_searched(rows, step.quantization))
    return list(mx.quantize(rows, **step.quantization.mlx_arguments()))


def read_rows(source: Source) -> Iterator[mx.array]:
    """The tensor as matrices (rows, last axis) of about CHUNK_BYTES. Raises CheckpointError."""
    for first, count in row_chunks(source):
        yield source.read(first, count)


def row_chunks(
    source: Source, first: int = 0, count: int | None = None, chunks: int = 1
) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each piece of a tensor, or of `count` rows of it from `first` on.

    Pieces are of one size, `chunks` times CHUNK_BYTES at most, and there is one for every worker.
    """
    count = source.num_rows if count is None else count
    most = max(1, chunks * CHUNK_BYTES // (source.shape[-1] * source.dtype.size))
    pieces = -(-count // most)
    step = -(-count // (-(-pieces // WORKERS) * WORKERS))
    for start in range(first, first + count, step):
        yield start, min(step, first + count - start)


def to_bytes(array: mx.array) -> memoryview:
    """The array's memory, computed now."""
    _, pattern = BIT_PATTERNS[array.dtype.size]
    values = np.asarray(array.view(pattern)).reshape(-1)
    return memoryview(values.view(np.uint8))  # type: ignore[arg-type]
