"""How a matrix is stored, and how eight of its values become a vector of fp32.

Values lie in their natural order, little end first. Scales and biases belong to groups of neighbouring
values of a row. In the modes mxfp4, mxfp8 and nvfp4 values and scales are small floating-point numbers
(https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.ir as ir

from mlx_qwen3.backend.native.kernels.emitter import F16, F32, I8, I16, I32, I64, V8F, Kernel, Value
from mlx_qwen3.backend.native.layout import LANES, Format


class Row(NamedTuple):
    """The addresses of a row: its values, its scales and its biases."""

    weight: Value
    scales: Value
    biases: Value


def row_of(fmt: Format, weight: Value, scales: Value, biases: Value, width: Value, row: Value) -> Row:
    """The addresses of row `row` of a matrix whose rows have `width` values."""
    values = weight + row * (width * fmt.bits // 8)
    if fmt.is_plain:
        return Row(values, scales, biases)
    skipped = row * (width // fmt.group_size) * fmt.scale_bytes
    return Row(values, scales + skipped, biases + skipped)


def eight(k: Kernel, fmt: Format, row: Row, first: Value) -> Value:
    """Values `first` up to `first` + 8 of a row, in fp32, before scale and bias."""
    if fmt.is_plain:
        return widened(k, fmt.mode, row.weight + first * (fmt.bits // 8), LANES)
    codes = _codes(k, fmt.bits, row.weight + first // 8 * fmt.bits)
    if fmt.mode == "affine":
        return k.convert(codes, "sitofp", F32)
    half = k.convert(codes, "trunc", I16)
    return _small_float(k, half, fmt.bits)


def scale_and_bias(k: Kernel, fmt: Format, row: Row, first: Value) -> tuple[Value | None, Value | None]:
    """The scale and the bias of the group of value `first`, as vectors; None if there is none."""
    if fmt.is_plain:
        return None, None
    offset = first // fmt.group_size * fmt.scale_bytes
    if fmt.mode == "affine":
        scale = widened(k, fmt.scales, row.scales + offset, 1)
        return k.splat(scale), k.splat(widened(k, fmt.scales, row.biases + offset, 1))
    code = k.load(I8, row.scales + offset)
    if fmt.mode == "nvfp4":  # an 8-bit float
        eight_times = k.splat(k.convert(code, "zext", I16))
        return _small_float(k, eight_times, 8), None
    bits = k.convert(code, "zext", I32)  # a power of two; 2^-127 is too small for the usual form
    bits = k.select(bits.equals(0), k.integer(1 << 22, I32), bits << 23)
    return k.splat(k.convert(bits, "bitcast", F32)), None


def arranged(k: Kernel, fmt: Format, row: Row, first: Value, count: int) -> list[Value]:
    """Values `first` up to `first` + `count` in vectors of eight, as `arranged_input` orders the input.

    Of 4-bit integers, the low halves of eight bytes are one vector and the high halves, which are sixteen
    times too large, the next. That takes half of the instructions of the natural order.
    """
    if not is_paired(fmt):
        return [eight(k, fmt, row, first + place) for place in range(0, count, LANES)]
    vectors = []
    for place in range(0, count, 2 * LANES):
        pairs = k.convert(k.load(ir.VectorType(I8, LANES), row.weight + (first + place) // 2), "zext", I32)
        vectors += [k.convert(pairs & mask, "sitofp", F32) for mask in (0x0F, 0xF0)]
    return vectors


def is_paired(fmt: Format) -> bool:
    """Whether `arranged` does not keep the natural order."""
    return fmt.mode == "affine" and fmt.bits == 4


def arranged_input(k: Kernel, fmt: Format, x: Value, first: Value, count: int) -> list[Value]:
    """Numbers `first` up to `first` + `count` of the input, to be multiplied with what `arranged` returns."""
    plain = [k.load(V8F, x + (first + place) * 4) for place in range(0, count, LANES)]
    if not is_paired(fmt):
        return plain
    even, odd = [0, 2, 4, 6, 8, 10, 12, 14], [1, 3, 5, 7, 9, 11, 13, 15]
    vectors = []
    for low, high in zip(plain[::2], plain[1::2], strict=True):
        vectors += [k.shuffled(low, high, even), k.shuffled(low, high, odd) * (1 / 16)]
    return vectors


def dequantized(
    k: Kernel, fmt: Format, row: Row, first: Value, scale: Value | None, bias: Value | None
) -> Value:
    """Eight values in fp32, with their scale and bias: to the bit those of `mx.dequantize`."""
    values = eight(k, fmt, row, first)
    if scale is None:
        return values
    return values * scale if bias is None else (values * scale).plus_exactly(bias)


def widened(k: Kernel, dtype: str, address: Value, count: int) -> Value:
    """A number (`count` 1) or a vector in fp32, which is stored as `dtype`."""

    def of(kind: Any) -> Any:
        return kind if count == 1 else ir.VectorType(kind, count)

    if dtype == "float32":
        return k.load(of(F32), address)
    if dtype == "float16":
        return k.convert(k.load(of(F16), address), "fpext", of(F32))
    wide = k.convert(k.load(of(I16), address), "zext", of(I32)) << 16
    return k.convert(wide, "bitcast", of(F32))


def _codes(k: Kernel, bits: int, address: Value) -> Value:
    """Eight packed integers of `bits` bits, of `bits` bytes, as 32-bit integers."""
    if bits == 8:
        return k.convert(k.load(ir.VectorType(I8, LANES), address), "zext", I32)
    if bits <= 4:  # they fit one word
        word = k.load(ir.IntType(8 * bits), address)
        if bits < 4:
            word = k.convert(word, "zext", I32)
        return (k.splat(word) >> k.lanes([bits * lane for lane in range(LANES)])) & ((1 << bits) - 1)
    word = k.convert(k.load(ir.IntType(8 * bits), address), "zext", I64)
    low, high = (k.splat(k.convert(part, "trunc", I32)) for part in (word, word >> (4 * bits)))
    both = k.shuffled(low, high, [0, 1, 2, 3, 12, 13, 14, 15])
    return (both >> k.lanes([bits * (lane % 4) for lane in range(LANES)])) & ((1 << bits) - 1)


def _small_float(k: Kernel, codes: Value, bits: int) -> Value:
    """Codes of 4 bits (e2m1) or 8 (e4m3) in 16-bit lanes -> fp32.

    Shifted into place, exponent and mantissa are those of a half whose value is a power of two smaller.
    """
    exponent_and_mantissa, sign, power = (9, 12, 14) if bits == 4 else (7, 8, 8)
    top = 1 << (bits - 1)
    half = ((codes & (top - 1)) << exponent_and_mantissa) | ((codes & top) << sign)
    return k.convert(k.convert(half, "bitcast", F16), "fpext", F32) * float(2**power)
