"""Reads rows of a tensor from its file, without the rest of it."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.backend.safetensors_io import DTYPES
from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.errors import CheckpointError

# Unsigned integers by size in bytes. numpy has no bfloat16, so numbers are passed on as bit patterns.
BIT_PATTERNS = {1: (np.uint8, mx.uint8), 2: (np.uint16, mx.uint16), 4: (np.uint32, mx.uint32)}
# MLX has no type for FP8; `mx.from_fp8` takes its bytes.
READABLE = {**DTYPES, "F8_E4M3": mx.uint8, "I8": mx.int8}


def read_stored_rows(tensor: StoredTensor, first: int, count: int) -> mx.array:
    """Rows `first` to `first + count` as stored, (count, width). Raises CheckpointError."""
    width = tensor.shape[-1] if tensor.shape else 1
    dtype = READABLE[tensor.dtype]
    numpy_pattern, pattern = BIT_PATTERNS[dtype.size]
    if is_cpu():  # straight into MLX's memory: no copy, and no lock held while reading
        rows = mx.zeros((count, width), pattern)
        mx.eval(rows)
        _read_into(np.asarray(rows), tensor, first * width * dtype.size)
    else:
        values = np.empty((count, width), numpy_pattern)
        _read_into(values, tensor, first * width * dtype.size)
        rows = mx.array(values)
    return rows.view(dtype)


def _read_into(values: np.ndarray[Any, Any], tensor: StoredTensor, start: int) -> None:
    """Fill `values` with the bytes of `tensor` from `start` on."""
    try:
        with tensor.file.open("rb") as file:
            file.seek(tensor.offset + start)
            num_bytes = file.readinto(memoryview(values).cast("B"))  # type: ignore[arg-type]
    except OSError as error:
        raise CheckpointError(f"{tensor.file} could not be read: {error.strerror or error}") from error
    if num_bytes < values.nbytes:
        raise CheckpointError(f"{tensor.file} ends within {tensor.name}; download it again")
