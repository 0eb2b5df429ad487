"""Runs the steps of a plan a few rows at a time, so that memory stays at some hundred MB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import mlx.core as mx
import numpy as np

from mlx_qwen3.checkpoint.files import DTYPES, StoredTensor
from mlx_qwen3.conversion.planning import Step
from mlx_qwen3.errors import CheckpointError

CHUNK_BYTES = 32 * 2**20
# numpy has no bfloat16, so numbers travel as bit patterns of their size.
BIT_PATTERNS = {1: (np.uint8, mx.uint8), 2: (np.uint16, mx.uint16), 4: (np.uint32, mx.uint32)}

Write = Callable[[str, memoryview], None]
"""(tensor name, its next bytes): tensors are written from front to back, several in turns."""


def run_step(step: Step, write: Write, on_bytes: Callable[[int], None]) -> None:
    """Read, cast and quantize one parameter, and hand its bytes to `write`.

    Quantization looks at one group of a row at a time, so chunks of rows give what the whole matrix
    would. on_bytes: called with the bytes read of each chunk. Raises CheckpointError, also for NaN and
    infinities, which would spoil a whole group.
    """
    names = [output.name for output in step.outputs]
    for source in step.sources:
        for rows in read_rows(source):
            on_bytes(rows.nbytes)
            _refuse_not_finite(rows, source)
            for name, array in zip(names, _converted(rows, step), strict=True):
                write(name, to_bytes(array))


def _refuse_not_finite(rows: mx.array, source: StoredTensor) -> None:
    if not mx.isfinite(rows).all().item():
        raise CheckpointError(f"{source.file}: {source.name} holds NaN or infinity; download it again")


def _converted(rows: mx.array, step: Step) -> list[mx.array]:
    rows = rows.astype(step.dtype)
    if step.quantization is None:
        return [rows]
    return list(mx.quantize(rows, **step.quantization.settings()))


def read_rows(tensor: StoredTensor) -> Iterator[mx.array]:
    """The tensor as matrices (rows, last axis) of about CHUNK_BYTES. Raises CheckpointError."""
    width = tensor.shape[-1]
    dtype = DTYPES[tensor.dtype]
    pattern, _ = BIT_PATTERNS[dtype.size]
    rows_left = tensor.size // width
    step = max(1, CHUNK_BYTES // (width * dtype.size))
    with tensor.file.open("rb") as file:
        file.seek(tensor.offset)
        while rows_left:
            rows = min(step, rows_left)
            rows_left -= rows
            values = _read(file, pattern, rows * width, tensor)
            yield mx.array(values.reshape(rows, width)).view(dtype)


def _read(file: BinaryIO, pattern: Any, count: int, tensor: StoredTensor) -> np.ndarray[Any, Any]:
    try:
        values = np.fromfile(file, pattern, count)
    except OSError as error:
        raise CheckpointError(f"{tensor.file} could not be read: {error.strerror or error}") from error
    if values.size < count:
        raise CheckpointError(f"{tensor.file} ends within {tensor.name}; download it again")
    return values


def to_bytes(array: mx.array) -> memoryview:
    """The array's memory, computed now."""
    _, pattern = BIT_PATTERNS[array.dtype.size]
    values = np.asarray(array.view(pattern)).reshape(-1)
    return memoryview(values.view(np.uint8))  # type: ignore[arg-type]
