"""Compares a converted tensor with its source, and decides whether its format explains the difference.

The yardstick is the error of plain rounding (`mx.quantize`) to the same format. Searched scales and GPTQ
come out near it; a matrix that was swapped, scaled or damaged does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_qwen3.conversion.numerics import Doubles, row_dots
from mlx_qwen3.conversion.source.chunks import row_chunks, to_bytes
from mlx_qwen3.conversion.source.tensors import QuantizedMatrix, SourceTensor
from mlx_qwen3.conversion.workers import in_order
from mlx_qwen3.model.config import Quantization

# The largest errors of a matrix and of a row, in units of plain rounding's. Rows vary more.
MATRIX_ALLOWANCE, ROW_ALLOWANCE = 1.6, 2.5
# Relative errors up to this come from scales rounded to 16 bits.
NEGLIGIBLE = 2e-3
MULTIPLE_COSINE = 0.9  # from this cosine on, a matrix counts as a multiple of its source


@dataclass(frozen=True)
class TensorCheck:
    """How far a converted tensor is from its source. Errors are relative: |converted - source| / |source|.

    Attributes:
        name: The parameter's name.
        bits: Bits per weight, None if it is not quantized.
        norm: |source|, the root of the sum of squares.
        error: The relative error.
        rounding_error: The relative error of plain rounding to the same format.
        identical: Whether it is stored exactly as plain rounding stores it.
        fault: What is wrong, or None.
    """

    name: str
    bits: int | None
    norm: float
    error: float
    rounding_error: float
    identical: bool
    fault: str | None = None


def compare(
    converted: SourceTensor, source: SourceTensor, on_bytes: Callable[[int], None] | None = None
) -> TensorCheck:
    """Compare `converted` with its `source`, chunk by chunk.

    on_bytes: called with the bytes of the source that were compared. Raises CheckpointError.
    """
    quantization = converted.quantization if isinstance(converted, QuantizedMatrix) else None
    if converted.shape != source.shape:
        fault = f"has shape {list(converted.shape)}, its source {list(source.shape)}"
        return _result(converted, quantization, _Sums(), fault)
    sums = _Sums()

    def compare_chunk(chunk: tuple[int, int]) -> tuple[int, int, _RowSums, bool]:
        first, count = chunk
        rows = source.read(first, count)
        stored, rounded, expected, is_identical = _read(converted, first, count, rows)
        return first, count, _row_sums(stored, rows, rounded, expected), is_identical

    for first, count, row_sums, is_identical in in_order(compare_chunk, row_chunks(source)):
        sums.add(row_sums, first, is_identical)
        if on_bytes is not None:
            on_bytes(source.num_bytes * count // source.num_rows)
    return _result(converted, quantization, sums, _fault(sums, quantization))


def _read(
    converted: SourceTensor, first: int, count: int, rows: mx.array
) -> tuple[mx.array, mx.array, mx.array, bool]:
    """Some rows of `converted`, and its source's `rows` rounded plainly to the same format.

    Then the squared error that rounding would have if weights were spread evenly between the grid points
    (rows, groups), and whether both are identical.
    """
    if not isinstance(converted, QuantizedMatrix):
        stored, rounded = converted.read(first, count), rows.astype(converted.dtype)
        return stored, rounded, mx.zeros((count, 1)), _same_bits(stored, rounded)
    parts = converted.read_parts(first, count)
    plain = mx.quantize(rows.astype(converted.dtype), **converted.quantization.mlx_arguments())
    identical = all(_same_bits(a, b) for a, b in zip(parts, plain, strict=True))
    stored = converted.dequantize_fp32(parts)
    rounded = stored if identical else converted.dequantize_fp32(plain)
    # Weights that were on the grid before round to it with almost no error, but GPTQ moves them all the same.
    expected = plain[1].astype(mx.float32).square() * (converted.quantization.group_size / 12)
    if converted.quantization.mode != "affine":
        expected = mx.zeros((count, 1))
    return stored, rounded, expected, identical


def _same_bits(a: mx.array, b: mx.array) -> bool:
    return np.array_equal(np.asarray(to_bytes(a)), np.asarray(to_bytes(b)))


@dataclass(frozen=True)
class _RowSums:
    """Sums over the values of each row."""

    norm: Doubles  # source squared
    error: Doubles  # (converted - source) squared
    rounding: Doubles  # (plainly rounded - source) squared
    expected: Doubles  # the same for weights spread evenly between the grid points
    product: Doubles  # converted * source


def _row_sums(stored: mx.array, rows: mx.array, rounded: mx.array, expected: mx.array) -> _RowSums:
    rows = rows.astype(mx.float32)
    difference = stored.astype(mx.float32) - rows
    norm, error = row_dots(rows, rows), row_dots(difference, difference)
    rounding = error
    if rounded is not stored:
        rounding_difference = rounded.astype(mx.float32) - rows
        rounding = row_dots(rounding_difference, rounding_difference)
    expected_sums = np.array(expected.sum(axis=-1)).astype(np.float64)
    return _RowSums(norm, error, rounding, expected_sums, product=norm + row_dots(difference, rows))


class _Sums:
    """The same sums over a whole matrix, and its wrong rows."""

    def __init__(self) -> None:
        self.norm = self.error = self.rounding = self.expected = self.product = 0.0
        self.identical = True
        self.num_rows = self.num_wrong = 0
        self.first_wrong: int | None = None

    def add(self, rows: _RowSums, first: int, identical: bool) -> None:
        """Add a chunk, whose first row is row `first`."""
        self.norm += float(rows.norm.sum())
        self.error += float(rows.error.sum())
        self.rounding += float(rows.rounding.sum())
        self.expected += float(rows.expected.sum())
        self.product += float(rows.product.sum())
        self.identical = self.identical and identical
        rounding = np.maximum(rows.rounding, rows.expected)
        allowed = ROW_ALLOWANCE * np.sqrt(rounding) + NEGLIGIBLE * np.sqrt(rows.norm)
        wrong = ~(np.sqrt(rows.error) <= allowed)  # NaN is wrong too, so not `>`
        if wrong.any() and self.first_wrong is None:
            self.first_wrong = first + int(wrong.argmax())
        self.num_rows += len(wrong)
        self.num_wrong += int(wrong.sum())

    def relative(self, squares: float) -> float:
        """The root of a sum of squares, divided by the source's."""
        return math.sqrt(squares / self.norm) if self.norm else math.sqrt(squares)

    @property
    def scale(self) -> float:
        """The factor by which the source was multiplied, by least squares."""
        return self.product / self.norm if self.norm else 1.0

    @property
    def is_multiple(self) -> bool:
        """Whether the matrix is a multiple of its source, but for rounding."""
        converted_norm = self.error + 2 * self.product - self.norm
        if converted_norm <= 0:
            return False
        return abs(self.product) > MULTIPLE_COSINE * math.sqrt(converted_norm * self.norm)


def _fault(sums: _Sums, quantization: Quantization | None) -> str | None:
    error, rounding = sums.relative(sums.error), sums.relative(max(sums.rounding, sums.expected))
    if not math.isfinite(error):
        return "holds NaN or infinity"
    if quantization is None:
        return None if sums.identical else f"is not its source (relative error {error:.2g})"
    # Rounding moves as many values up as down, and least squares shrinks them by at most its squared error.
    if abs(sums.scale - 1) > 3 * rounding**2 + NEGLIGIBLE and sums.is_multiple:
        return f"is {sums.scale:.3f} times its source"
    if 0 < sums.num_wrong < sums.num_rows / 2:
        more = f" (and {sums.num_wrong - 1} more)" if sums.num_wrong > 1 else ""
        return f"row {sums.first_wrong}{more} is not its source's"
    if sums.num_wrong or error > MATRIX_ALLOWANCE * rounding + NEGLIGIBLE:
        bits = quantization.bits
        return f"has a relative error of {error:.2g}, where plain rounding to {bits} bits has {rounding:.2g}"
    return None


def _result(
    converted: SourceTensor, quantization: Quantization | None, sums: _Sums, fault: str | None
) -> TensorCheck:
    return TensorCheck(
        name=converted.name,
        bits=quantization.bits if quantization else None,
        norm=math.sqrt(sums.norm),
        error=sums.relative(sums.error),
        rounding_error=sums.relative(sums.rounding),
        identical=sums.identical and fault is None,
        fault=fault,
    )
