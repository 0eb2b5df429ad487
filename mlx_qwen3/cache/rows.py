"""Rows of keys or values, plain or quantized, and what can be done to both alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx

VALUE_BITS = 32
"""Bits of the words that quantized values are packed into."""


class QuantizedRows(NamedTuple):
    """Rows (B, H, S, D) as `mx.quantize` returns them: D values packed in words, then per group of
    values a scale and a bias. Bits and group size follow from the shapes, once D is known."""

    packed: mx.array  # (B, H, S, D * bits / 32) uint32
    scales: mx.array  # (B, H, S, D / group_size)
    biases: mx.array

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + self.scales.nbytes + self.biases.nbytes


Rows = mx.array | QuantizedRows


class Layout(NamedTuple):
    """How rows are quantized: `bits` a value, one scale and bias for `group_size` values."""

    group_size: int
    bits: int


def layout_of(rows: Sequence[mx.array], head_dim: int) -> Layout:
    """The layout of quantized rows (packed, scales, biases) of `head_dim` values each."""
    packed, scales = rows[0], rows[1]
    return Layout(head_dim // scales.shape[-1], packed.shape[-1] * VALUE_BITS // head_dim)


def quantize(rows: mx.array, layout: Layout) -> QuantizedRows:
    """rows (B, H, S, D), quantized. Gradients stop here: rounding has none."""
    packed = mx.quantize(rows, group_size=layout.group_size, bits=layout.bits)
    return QuantizedRows(*map(mx.stop_gradient, packed))


def dequantize(rows: Sequence[mx.array], layout: Layout) -> mx.array:
    """Quantized rows (packed, scales, biases) -> (B, H, S, D), in the format of the scales."""
    packed, scales, biases = rows
    return mx.dequantize(packed, scales, biases, group_size=layout.group_size, bits=layout.bits)


def each(function: Callable[..., mx.array], *rows: Rows) -> Rows:
    """`function` of the array or, for quantized rows, of each of their arrays."""
    if isinstance(rows[0], mx.array):
        return function(*rows)
    return QuantizedRows(*(function(*arrays) for arrays in zip(*rows, strict=True)))


def copied(rows: Rows) -> Rows:
    """`rows` in memory of their own: a view holds on to the whole of the buffer it was taken from."""
    return each(lambda array: array * 1, rows)


def length_of(rows: Rows) -> int:
    """S, how many rows there are."""
    return (rows if isinstance(rows, mx.array) else rows[0]).shape[2]


def take(rows: Rows, start: int, stop: int) -> Rows:
    """Rows `start` up to `stop`; a view, so taking all of them copies nothing."""
    return each(lambda array: array[..., start:stop, :], rows)


def join(parts: Sequence[Rows]) -> Rows:
    """One after the other; empty parts are dropped, though one part must be left."""
    filled = [part for part in parts if length_of(part)] or list(parts[:1])
    if len(filled) == 1:
        return filled[0]
    return each(lambda *arrays: mx.concatenate(list(arrays), axis=2), *filled)


def nbytes(rows: Rows | None) -> int:
    """Bytes of memory held."""
    return 0 if rows is None else rows.nbytes
