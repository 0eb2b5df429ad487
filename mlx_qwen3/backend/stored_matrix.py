"""Products with a matrix as it is stored: quantized, in 16 bits or in fp32, on Linux CPUs.

Few input rows are multiplied by a kernel that unpacks values in registers (`native/products.py`). For many
rows a tile of the matrix at a time is unpacked into the operand of a product by numpy's BLAS. Both compute in
fp32 and read the weights where MLX has them. Nothing is copied.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.native.layout import PLAIN, Format, panels_bytes
from mlx_qwen3.backend.native.program import Program, Stored

# Up to this many input rows the kernel is faster than unpacking for a BLAS.
FEW_ROWS = 17
# fp32 numbers of an unpacked tile: 4 MiB, which stay in the cache.
TILE_NUMBERS = 2**20
DTYPES = {mx.float32: "float32", mx.float16: "float16", mx.bfloat16: "bfloat16"}
# Products of fewer multiplications are left to the calling thread.
SMALL_PRODUCT = 2**18
_local = threading.local()


def address_of(array: mx.array) -> int:
    """Where the numbers of an evaluated array without gaps are. Raises ValueError if it has gaps."""
    view = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array  # numpy has no bfloat16
    data = np.asarray(view)
    if not data.flags.c_contiguous:
        raise ValueError("the array has gaps")
    return int(data.ctypes.data)


class Part(NamedTuple):
    """Outputs `first` up to `first` + `outputs` of a matrix, for the input rows `start` up to `stop`."""

    first: int
    outputs: int
    start: int
    stop: int


class StoredMatrix:
    """A matrix (outputs, width) of MLX. It keeps the arrays alive."""

    def __init__(
        self,
        weight: mx.array,
        scales: mx.array | None = None,
        biases: mx.array | None = None,
        group_size: int = 0,
        bits: int = 0,
        mode: str = "",
    ):
        """The arguments are those of `mx.dequantize`; a plain matrix has only the first.

        All axes but the last count as outputs.
        """
        self._arrays = [mx.contiguous(a) for a in (weight, scales, biases) if a is not None]
        mx.eval(self._arrays)
        addresses = [address_of(array) for array in self._arrays] + [0, 0]
        outputs = weight.size // weight.shape[-1]
        if scales is None:
            fmt = Format(DTYPES[weight.dtype], 8 * weight.dtype.size)
            width = weight.shape[-1]
        else:
            fmt = Format(mode, bits, group_size, DTYPES[scales.dtype] if mode == "affine" else "")
            width = weight.shape[-1] * 32 // bits
        self.stored = Stored(fmt, addresses[0], addresses[1], addresses[2], width, outputs)

    def product(self, x: Any, y: Any, parts: Sequence[Part]) -> None:
        """y (rows, outputs) = x (rows, width) @ matrix.T, both numpy's and without gaps.

        parts: The rows of the matrix to take for each range of rows of x.
        """
        program, work, panels = Program(), 0, []
        for first, outputs, start, stop in parts:
            rows = stop - start
            stored = self.stored.part(first, outputs)
            x_place, y_place = (a.ctypes.data + start * a.strides[0] for a in (x, y))
            if rows > FEW_ROWS:
                panels.append(np.empty(panels_bytes(rows, self.stored.width), np.uint8))
                program.matmul(stored, x_place, y_place, rows, y.strides[0], panels[-1].ctypes.data)
            else:
                program.product(stored, x_place, y_place, rows, y.strides[0])
            work += rows * outputs * self.stored.width
        if len(program):
            program.run(alone=work < SMALL_PRODUCT)

    def product_back(self, y: Any, x: Any, parts: Sequence[Part]) -> None:
        """x (rows, width) = y (rows, outputs) @ matrix: what gradients need."""
        x[:] = 0
        for first, outputs, start, stop in parts:
            for begin, end, tile in self._tiles(first, first + outputs):
                x[start:stop] += y[start:stop, begin - first : end - first] @ tile

    def dequantized(self, leading: Sequence[int]) -> mx.array:
        """The matrix in fp32, (*leading, width)."""
        result = mx.zeros((self.stored.outputs, self.stored.width))
        mx.eval(result)
        self.unpack(np.asarray(result))
        return result.reshape(*leading, self.stored.width)

    def unpack(self, target: Any, ids: Any = None, first: int = 0) -> None:
        """Rows in fp32, those of `ids` or from `first` on, as many as `target` (rows, width) has."""
        program = Program()
        stored = self.stored.part(first, len(target))
        place = 0 if ids is None else ids.ctypes.data
        program.unpack(stored, len(target), target.ctypes.data, place)
        program.run(alone=target.size < SMALL_PRODUCT)

    def _tiles(self, first: int, last: int) -> Iterator[tuple[int, int, Any]]:
        """Consecutive rows in fp32. Each tile is overwritten by the next."""
        width = self.stored.width
        step = max(1, TILE_NUMBERS // width)
        memory = getattr(_local, "tile", None)
        if memory is None or memory.size < step * width:
            memory = _local.tile = np.empty(max(TILE_NUMBERS, width), np.float32)
        for start in range(first, last, step):
            stop = min(start + step, last)
            tile = memory[: (stop - start) * width].reshape(stop - start, width)
            self.unpack(tile, first=start)
            yield start, stop, tile


def multiply_arrays(a: Any, b: Any, y: Any) -> None:
    """y (..., M, N) = a (..., M, K) @ b (..., K, N), of numpy, in fp32. y has no gaps."""
    if b.ndim == 2:  # one matrix for all rows of a
        a, y = a.reshape(-1, a.shape[-1]), y.reshape(-1, y.shape[-1])
    elif a.shape[:-2] != b.shape[:-2]:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a = np.broadcast_to(a, (*batch, *a.shape[-2:]))
        b = np.broadcast_to(b, (*batch, *b.shape[-2:]))
    rows, width = a.shape[-2:]
    outputs = b.shape[-1]
    a = np.ascontiguousarray(a).reshape(-1, rows, width)
    columns = b.swapaxes(-1, -2).reshape(-1, outputs, width)  # a view, where the axes allow it
    if columns.strides[1:] != (4 * width, 4):
        columns = np.ascontiguousarray(columns)
    y = y.reshape(-1, rows, outputs)
    program = Program()
    panels = np.empty(panels_bytes(rows, width), np.uint8)
    for x, matrix, result in zip(a, columns, y, strict=True):
        stored = Stored(PLAIN, matrix.ctypes.data, 0, 0, width, outputs)
        if rows > FEW_ROWS:
            program.matmul(stored, x.ctypes.data, result.ctypes.data, rows, 4 * outputs, panels.ctypes.data)
        else:
            program.product(stored, x.ctypes.data, result.ctypes.data, rows)
    program.run(alone=y.size * width < SMALL_PRODUCT)
