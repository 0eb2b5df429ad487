"""Buffers of rows: Buffer stores them as they come, QuantizedBuffer in 4 or 8 bits per value.

A buffer has capacity for a number of rows. Which of them are in use is known to its cache alone.

An array of MLX never changes once it was handed out: `write` copies the memory if others still use it.
Kernels of the CPU write into the memory directly. They may do so only while the rows are the buffer's own: no
array of them has been handed out since the last `write`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlx_qwen3.cache.rows import (
    Layout,
    QuantizedRows,
    Rows,
    dequantize,
    join,
    length_of,
    map_arrays,
    quantize,
    take,
)
from mlx_qwen3.errors import CacheError

BITS, GROUP_SIZES = (4, 8), (32, 64, 128)


class Place(NamedTuple):
    """Where rows lie in memory.

    Attributes:
        address: Of the first head's first row.
        step: Bytes from one head's rows to the next's.
        room: Up to how many rows may be written there; 0 if others were given the rows.
    """

    address: int
    step: int
    room: int


class Buffer:
    """Rows in the dtype they come in. `encode` and `decode` change nothing."""

    def __init__(self) -> None:
        self._rows: Rows | None = None
        self._is_own = False
        self._place: Place | None = None

    @property
    def rows(self) -> Rows | None:
        """The whole buffer, (B, H, capacity, D); None before the first write."""
        self._give_away()
        return self._rows

    def _give_away(self) -> None:
        self._is_own, self._place = False, None

    @property
    def is_float32(self) -> bool:
        """Whether the rows are plain numbers in fp32."""
        return isinstance(self._rows, mx.array) and bool(self._rows.dtype == mx.float32)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written yet."""
        return self._rows is None

    def place(self) -> Place:
        """Where rows in fp32 of a batch of one lie, until the next `write` or `hold`. Evaluates them.

        On a CPU only.
        """
        if self._place is None:
            mx.eval(self._rows)
            rows = np.asarray(self._rows)
            assert rows.strides[2:] == (rows.itemsize * rows.shape[3], rows.itemsize)
            self._place = Place(rows.ctypes.data, rows.strides[1], self.capacity if self._is_own else 0)
        return self._place

    def encode(self, rows: mx.array) -> Rows:
        """Rows (B, H, L, D) as this buffer stores them."""
        return rows

    def decode(self, rows: Rows) -> mx.array:
        """Stored rows as an array (B, H, L, D)."""
        assert isinstance(rows, mx.array)
        return rows

    @property
    def capacity(self) -> int:
        return 0 if self._rows is None else length_of(self._rows)

    @property
    def nbytes(self) -> int:
        return 0 if self._rows is None else self._rows.nbytes

    def reserve(self, capacity: int, like: Rows, used: int) -> None:
        """Resize the buffer to `capacity` rows shaped like the encoded rows `like`; keep the first `used`."""
        unused = map_arrays(
            lambda array: mx.zeros((*array.shape[:2], capacity - used, array.shape[3]), array.dtype), like
        )
        self.hold(unused if self._rows is None or not used else join([take(self._rows, 0, used), unused]))

    def write(self, rows: Rows, start: int) -> None:
        """Write encoded rows from `start` on; in place if no other array uses the memory."""
        assert self._rows is not None

        def write(buffer: mx.array, new: mx.array) -> mx.array:
            buffer[..., start : start + new.shape[2], :] = new
            return buffer

        map_arrays(write, self._rows, rows)
        # Rows that fill the buffer become the buffer, and may be used by others.
        self._is_own, self._place = length_of(rows) < self.capacity, None

    def read(self, start: int, stop: int) -> Rows:
        """Encoded rows `start` up to `stop`, as a view."""
        assert self._rows is not None
        self._give_away()
        return take(self._rows, start, stop)

    def hold(self, rows: Sequence[mx.array] | mx.array | None) -> None:
        """Use encoded `rows`, as a cache's `state` has them, as the whole buffer."""
        self._rows = rows if rows is None or isinstance(rows, mx.array) else QuantizedRows(*rows)
        self._give_away()


class QuantizedBuffer(Buffer):
    """Rows quantized as they are written: each row once, and never again.

    Raises CacheError for bits other than 4 and 8, or group sizes other than 32, 64 and 128.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        if layout.bits not in BITS or layout.group_size not in GROUP_SIZES:
            raise CacheError(
                "a quantized KV cache has 4 or 8 bits and groups of 32, 64 or 128, "
                f"not {layout.bits} bits and groups of {layout.group_size}"
            )
        self.layout = layout

    def encode(self, rows: mx.array) -> Rows:
        if rows.shape[-1] % self.layout.group_size:
            raise CacheError(
                f"a quantization group of {self.layout.group_size} does not divide heads of "
                f"{rows.shape[-1]} values; choose another group_size"
            )
        return quantize(rows, self.layout)

    def decode(self, rows: Rows) -> mx.array:
        assert not isinstance(rows, mx.array)
        return dequantize(rows, self.layout)


def make_buffer(layout: Layout | None) -> Buffer:
    """An empty buffer for plain rows (None) or quantized ones."""
    return Buffer() if layout is None else QuantizedBuffer(layout)
