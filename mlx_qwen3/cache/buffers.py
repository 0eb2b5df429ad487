"""How rows are stored: DenseBuffer as they come, QuantizedBuffer in 4 or 8 bits a value.

A buffer is room for `capacity` rows. It does not know which of them mean anything; its cache does.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlx_qwen3.cache.rows import (
    Layout,
    QuantizedRows,
    Rows,
    dequantize,
    each,
    join,
    length_of,
    quantize,
    take,
)
from mlx_qwen3.errors import CacheError

BITS, GROUP_SIZES = (4, 8), (32, 64, 128)


class DenseBuffer:
    """Rows in the format they come in."""

    def __init__(self) -> None:
        self.rows: Rows | None = None
        """All the room there is, (B, H, capacity, D); None before the first write."""

    def encode(self, rows: mx.array) -> Rows:
        """`rows` (B, H, L, D) in the form this buffer stores."""
        return rows

    def decode(self, rows: Rows) -> mx.array:
        """Stored rows as plain ones (B, H, L, D)."""
        assert isinstance(rows, mx.array)
        return rows

    @property
    def capacity(self) -> int:
        return 0 if self.rows is None else length_of(self.rows)

    @property
    def nbytes(self) -> int:
        return 0 if self.rows is None else self.rows.nbytes

    def reserve(self, capacity: int, like: Rows, used: int) -> None:
        """Make the room `capacity` rows shaped like the encoded rows `like`; keep the first `used`."""
        room = each(
            lambda array: mx.zeros((*array.shape[:2], capacity - used, array.shape[3]), array.dtype), like
        )
        self.rows = room if self.rows is None or not used else join([take(self.rows, 0, used), room])

    def write(self, rows: Rows, start: int) -> None:
        """Put encoded rows at `start`: in place where nothing else holds the memory."""
        assert self.rows is not None

        def put(room: mx.array, new: mx.array) -> mx.array:
            room[..., start : start + new.shape[2], :] = new
            return room

        each(put, self.rows, rows)

    def read(self, start: int, stop: int) -> Rows:
        """The encoded rows `start` up to `stop`, as a view."""
        assert self.rows is not None
        return take(self.rows, start, stop)

    def hold(self, rows: Sequence[mx.array] | mx.array | None) -> None:
        """Take encoded `rows`, as saved, for all the room there is."""
        self.rows = rows if rows is None or isinstance(rows, mx.array) else QuantizedRows(*rows)


class QuantizedBuffer(DenseBuffer):
    """Rows quantized as they are written: a row is quantized once and never again.

    Raises CacheError for bits other than 4 and 8, or group sizes other than 32, 64 and 128.
    """

    def __init__(self, group_size: int = 64, bits: int = 8) -> None:
        super().__init__()
        if bits not in BITS or group_size not in GROUP_SIZES:
            raise CacheError(
                f"a KV cache has 4 or 8 bits and groups of 32, 64 or 128, not {bits} bits and {group_size}"
            )
        self.layout = Layout(group_size, bits)

    def encode(self, rows: mx.array) -> Rows:
        if rows.shape[-1] % self.layout.group_size:
            raise CacheError(
                f"a quantization group of {self.layout.group_size} does not divide heads of "
                f"{rows.shape[-1]} values; choose another group size"
            )
        return quantize(rows, self.layout)

    def decode(self, rows: Rows) -> mx.array:
        assert not isinstance(rows, mx.array)
        return dequantize(rows, self.layout)


Buffer = DenseBuffer
"""What a cache needs of either."""
