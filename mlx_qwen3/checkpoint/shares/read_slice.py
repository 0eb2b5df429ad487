"""Reads slices of stored tensors into an array piece by piece: memory holds the array and one piece."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from io import FileIO
from itertools import chain
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.distributed.plan import Span

PIECE_BYTES = 1 << 24


def read_slices(
    tensors: Sequence[StoredTensor], rows: Span | None, columns: Span | None, dtype: Any
) -> mx.array:
    """The slices of all tensors, below each other: (R, C), of rows of the last axis.

    Args:
        tensors: Of one shape and dtype.
        rows, columns: The span of the last axis but one, and of the last; None for all.
        dtype: numpy's, as they are stored.

    Raises:
        OSError, ValueError: A file cannot be read, or is too short.
    """
    shape = tensors[0].shape
    width = shape[-1] if columns is None else columns.length
    height = math.prod(shape[:-1]) if rows is None else math.prod(shape[:-2]) * rows.length
    total = len(tensors) * height
    pieces = (piece for tensor in tensors for piece in _pieces(tensor, rows, columns, np.dtype(dtype)))
    first = next(pieces)
    if len(first) == total:
        return mx.array(first)
    array = mx.zeros((total, width), mx.array(first[:0]).dtype)
    mx.eval(array)
    start = 0
    for piece in chain([first], pieces):
        array[start : start + len(piece)] = mx.array(piece)
        mx.eval(array)  # in place: nothing else has it
        start += len(piece)
    return array


def _pieces(
    tensor: StoredTensor, rows: Span | None, columns: Span | None, dtype: np.dtype[Any]
) -> Iterator[np.ndarray[Any, Any]]:
    """Rows of a tensor's slice, some megabytes at a time."""
    *outer, width = tensor.shape
    blocks, height = 1, math.prod(outer)
    first, stop = 0, height
    if rows is not None:
        blocks, height = math.prod(outer[:-1]), outer[-1]
        first, stop = rows
    step = max(1, PIECE_BYTES // (width * dtype.itemsize))
    with tensor.file.open("rb", buffering=0) as file:
        for block in range(blocks):
            for start in range(first, stop, step):
                count = min(step, stop - start)
                offset = tensor.offset + (block * height + start) * width * dtype.itemsize
                piece = _read(file, offset, (count, width), dtype)
                yield piece if columns is None else np.ascontiguousarray(piece[:, slice(*columns)])


def _read(file: FileIO, offset: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    piece = np.empty(shape, dtype)
    room = piece.reshape(-1).view(np.uint8).data  # where its bytes are
    file.seek(offset)
    done = 0
    while done < len(room):
        if not (count := file.readinto(room[done:])):
            raise ValueError("it is cut off")
        done += count
    return piece
