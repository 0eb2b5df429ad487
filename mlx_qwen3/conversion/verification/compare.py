"""A written tensor beside the one it was made of: how far off it is, and whether its format explains that.

Plain rounding of the source to the same format is the yardstick. Searched or weighted rounding comes out
near it, whichever it favours; a matrix that was swapped, scaled or damaged does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.conversion.source.tensors import QuantizedMatrix, Source
from mlx_qwen3.conversion.workers import dots, in_order
from mlx_qwen3.conversion.write.step import row_chunks, to_bytes
from mlx_qwen3.model.config import Quantization

# How far beyond plain rounding's a matrix's error and a single row's may be. Rows of one group vary.
MATRIX_ALLOWANCE, ROW_ALLOWANCE = 1.6, 2.5
# Errors this small, of a row's length, are those of scales rounded to 16 bits.
NEGLIGIBLE = 2e-3
LIKE = 0.9  # the cosine between a matrix and its source, from which on it is taken for a multiple of it


@dataclass(frozen=True)
class TensorCheck:
    """What a comparison found. Errors are relative: length of the difference / length of the source.

    norm: the source's length (the root of the sum of squares). bits: per weight as quantized, None if
    not. rounding_error: that of plain rounding to the same format. identical: stored exactly as plain
    rounding would. fault: what is wrong, or None.
    """

    name: str
    bits: int | None
    norm: float
    error: float
    rounding_error: float
    identical: bool
    fault: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(made: Source, original: Source, on_bytes: Callable[[int], None] | None = None) -> TensorCheck:
    """Compare every row of `made` with `original`, some rows in memory at a time.

    on_bytes: called with the bytes of the original that were compared. Raises CheckpointError.
    """
    quantization = made.quantization if isinstance(made, QuantizedMatrix) else None
    if made.shape != original.shape:
        fault = f"has shape {list(made.shape)}, its source {list(original.shape)}"
        return _result(made, quantization, _Sums(), fault)
    sums = _Sums()

    def compared(chunk: tuple[int, int]) -> tuple[int, int, _RowSums, bool]:
        first, count = chunk
        rows = original.read(first, count)
        stored, rounded, steps, is_identical = _read(made, first, count, rows)
        return first, count, _row_sums(stored, rows, rounded, steps), is_identical

    for first, count, row_sums, is_identical in in_order(compared, row_chunks(original)):
        sums.add(row_sums, first, is_identical)
        if on_bytes is not None:
            on_bytes(original.num_bytes * count // original.num_rows)
    return _result(made, quantization, sums, _fault(sums, quantization))


def _read(made: Source, first: int, count: int, rows: mx.array) -> tuple[mx.array, mx.array, mx.array, bool]:
    """Rows of `made`, what plain rounding of `rows` to its format gives, the error of an evenly spread
    weight, squared (rows, groups), and whether they are identical."""
    if not isinstance(made, QuantizedMatrix):
        stored, rounded = made.read(first, count), rows.astype(made.dtype)
        return stored, rounded, mx.zeros((count, 1)), _same_bits(stored, rounded)
    parts = made.read_parts(first, count)
    plain = mx.quantize(rows.astype(made.dtype), **made.quantization.mlx_arguments())
    identical = all(_same_bits(a, b) for a, b in zip(parts, plain, strict=True))
    stored = made.dequantize_fp32(parts)
    rounded = stored if identical else made.dequantize_fp32(plain)
    # Weights that were on a grid before round to it with hardly an error, and compensation moves them still.
    steps = plain[1].astype(mx.float32).square() * (made.quantization.group_size / 12)
    if made.quantization.mode != "affine":
        steps = mx.zeros((count, 1))
    return stored, rounded, steps, identical


def _same_bits(a: mx.array, b: mx.array) -> bool:
    return np.array_equal(np.asarray(to_bytes(a)), np.asarray(to_bytes(b)))


@dataclass(frozen=True)
class _RowSums:
    """For each row, sums over its values."""

    norm: np.ndarray[Any, Any]  # source squared
    error: np.ndarray[Any, Any]  # (made - source) squared
    rounding: np.ndarray[Any, Any]  # (rounded - source) squared
    expected: np.ndarray[Any, Any]  # the same, of weights spread evenly between grid points
    product: np.ndarray[Any, Any]  # made * source


def _row_sums(made: mx.array, rows: mx.array, rounded: mx.array, steps: mx.array) -> _RowSums:
    rows = rows.astype(mx.float32)
    off = made.astype(mx.float32) - rows
    norm, error = dots(rows, rows), dots(off, off)
    # Stored as plain rounding would: then both errors are one.
    rounding = error if rounded is made else _squares(rounded.astype(mx.float32) - rows)
    expected = np.array(steps.sum(axis=-1)).astype(np.float64)
    return _RowSums(norm, error, rounding, expected, product=norm + dots(off, rows))


def _squares(rows: mx.array) -> np.ndarray[Any, Any]:
    return dots(rows, rows)


class _Sums:
    """The same over a whole matrix, and which of its rows are wrong."""

    def __init__(self) -> None:
        self.norm = self.error = self.rounding = self.expected = self.product = 0.0
        self.identical = True
        self.num_rows = self.num_wrong = 0
        self.first_wrong: int | None = None

    def add(self, rows: _RowSums, first: int, identical: bool) -> None:
        """Add rows that begin with row `first`."""
        self.norm += float(rows.norm.sum())
        self.error += float(rows.error.sum())
        self.rounding += float(rows.rounding.sum())
        self.expected += float(rows.expected.sum())
        self.product += float(rows.product.sum())
        self.identical = self.identical and identical
        rounding = np.maximum(rows.rounding, rows.expected)
        allowed = ROW_ALLOWANCE * np.sqrt(rounding) + NEGLIGIBLE * np.sqrt(rows.norm)
        wrong = ~(np.sqrt(rows.error) <= allowed)  # written so that NaN is wrong as well
        if wrong.any() and self.first_wrong is None:
            self.first_wrong = first + int(wrong.argmax())
        self.num_rows += len(wrong)
        self.num_wrong += int(wrong.sum())

    def relative(self, squares: float) -> float:
        """A sum of squares, as a length relative to the source's."""
        return math.sqrt(squares / self.norm) if self.norm else math.sqrt(squares)

    @property
    def scale(self) -> float:
        """What the source was multiplied with, as far as least squares can tell."""
        return self.product / self.norm if self.norm else 1.0

    @property
    def is_like_source(self) -> bool:
        """Whether it is the source but for a factor."""
        made = self.error + 2 * self.product - self.norm
        return made > 0 and abs(self.product) > LIKE * math.sqrt(made * self.norm)


def _fault(sums: _Sums, quantization: Quantization | None) -> str | None:
    error, rounding = sums.relative(sums.error), sums.relative(max(sums.rounding, sums.expected))
    if not math.isfinite(error):
        return "holds NaN or infinity"
    if quantization is None:
        return None if sums.identical else f"is not its source (relative error {error:.2g})"
    # Rounding moves values up and down alike; least squares shrinks them by no more than its own error.
    if abs(sums.scale - 1) > 3 * rounding**2 + NEGLIGIBLE and sums.is_like_source:
        return f"is {sums.scale:.3f} times its source"
    if 0 < sums.num_wrong < sums.num_rows / 2:
        more = f" (and {sums.num_wrong - 1} more)" if sums.num_wrong > 1 else ""
        return f"row {sums.first_wrong}{more} is not its source's"
    if sums.num_wrong or error > MATRIX_ALLOWANCE * rounding + NEGLIGIBLE:
        return f"has a relative error of {error:.2g}, where {quantization.bits} bits come to {rounding:.2g}"
    return None


def _result(made: Source, quantization: Quantization | None, sums: _Sums, fault: str | None) -> TensorCheck:
    return TensorCheck(
        name=made.name,
        bits=quantization.bits if quantization else None,
        norm=math.sqrt(sums.norm),
        error=sums.relative(sums.error),
        rounding_error=sums.relative(sums.rounding),
        identical=sums.identical and fault is None,
        fault=fault,
    )
