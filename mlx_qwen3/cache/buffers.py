"""Buffers of rows: Buffer stores them as they come, QuantizedBuffer in 4 or 8 bits per value.

A buffer has capacity for a number of rows. Which of them are in use is known to its cache alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

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


class Buffer:
    """Rows in the dtype they come in. `encode` and `decode` change nothing."""

    def __init__(self) -> None:
        self.rows: Rows | None = None
        """The whole buffer, (B, H, capacity, D); None before the first write."""

    def encode(self, rows: mx.array) -> Rows:
        """Rows (B, H, L, D) as this buffer stores them."""
        return rows

    def decode(self, rows: Rows) -> mx.array:
        """Stored rows as an array (B, H, L, D)."""
        assert isinstance(rows, mx.array)
        return rows

    @property
    def capacity(self) -> int:
        return 0 if self.rows is None else length_of(self.rows)

    @property
    def nbytes(self) -> int:
        return 0 if self.rows is None else self.rows.nbytes

    def reserve(self, capacity: int, like: Rows, used: int) -> None:
        """Resize the buffer to `capacity` rows shaped like the encoded rows `like`; keep the first `used`."""
        unused = map_arrays(
            lambda array: mx.zeros((*array.shape[:2], capacity - used, array.shape[3]), array.dtype), like
        )
        self.rows = unused if self.rows is None or not used else join([take(self.rows, 0, used), unused])

    def write(self, rows: Rows, start: int) -> None:
        """Write encoded rows from `start` on; in place if no other array uses the memory."""
        assert self.rows is not None

        def write(buffer: mx.array, new: mx.array) -> mx.array:
            buffer[..., start : start + new.shape[2], :] = new
            return buffer

        map_arrays(write, self.rows, rows)

    def read(self, start: int, stop: int) -> Rows:
        """Encoded rows `start` up to `stop`, as a view."""
        assert self.rows is not None
        return take(self.rows, start, stop)

    def hold(self, rows: Sequence[mx.array] | mx.array | None) -> None:
        """Use encoded `rows`, as a cache's `state` has them, as the whole buffer."""
        self.rows = rows if rows is None or isinstance(rows, mx.array) else QuantizedRows(*rows)


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
