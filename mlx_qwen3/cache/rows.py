"""Rows of keys or values, plain or quantized, and functions that treat both alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx

PACKED_BITS = 32
"""Bits of the integers that quantized values are packed into."""


class QuantizedRows(NamedTuple):
    """Rows (B, H, S, D) as `mx.quantize` returns them: packed values, and a scale and a bias per group.

    Bits and group size follow from the shapes once D is known.
    """

    packed: mx.array  # (B, H, S, D * bits / 32) uint32
    scales: mx.array  # (B, H, S, D / group_size)
    biases: mx.array

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + self.scales.nbytes + self.biases.nbytes


Rows = mx.array | QuantizedRows


class Layout(NamedTuple):
    """How rows are quantized: `bits` per value, one scale and one bias per `group_size` values."""

    group_size: int
    bits: int


def layout_of(rows: Sequence[mx.array], head_dim: int) -> Layout:
    """The layout of quantized rows (packed, scales, biases) of `head_dim` values each."""
    packed, scales = rows[0], rows[1]
    return Layout(head_dim // scales.shape[-1], packed.shape[-1] * PACKED_BITS // head_dim)


def quantize(rows: mx.array, layout: Layout) -> QuantizedRows:
    """Quantize rows (B, H, S, D). Gradients stop here, as rounding has none."""
    packed = mx.quantize(rows, group_size=layout.group_size, bits=layout.bits)
    return QuantizedRows(*map(mx.stop_gradient, packed))


def dequantize(rows: Sequence[mx.array], layout: Layout) -> mx.array:
    """Quantized rows (packed, scales, biases) -> (B, H, S, D), in the dtype of the scales."""
    packed, scales, biases = rows
    return mx.dequantize(packed, scales, biases, group_size=layout.group_size, bits=layout.bits)


def map_arrays(function: Callable[..., mx.array], *rows: Rows) -> Rows:
    """Apply `function` to the array or, for quantized rows, to packed values, scales and biases in turn."""
    if isinstance(rows[0], mx.array):
        return function(*rows)
    return QuantizedRows(*(function(*arrays) for arrays in zip(*rows, strict=True)))


def copied(rows: Rows) -> Rows:
    """`rows` in memory of their own; a view would keep the whole buffer it was taken from."""
    return map_arrays(lambda array: array * 1, rows)


def length_of(rows: Rows) -> int:
    """The number of rows, S."""
    return (rows if isinstance(rows, mx.array) else rows[0]).shape[2]


def take(rows: Rows, start: int, stop: int) -> Rows:
    """Rows `start` up to `stop`, as a view."""
    return map_arrays(lambda array: array[..., start:stop, :], rows)


def join(parts: Sequence[Rows]) -> Rows:
    """Concatenate rows. Empty parts are skipped, so that a single filled part is not copied."""
    filled = [part for part in parts if length_of(part)] or list(parts[:1])
    if len(filled) == 1:
        return filled[0]
    return map_arrays(lambda *arrays: mx.concatenate(list(arrays), axis=2), *filled)
