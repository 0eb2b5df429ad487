"""Products in fp32 with 16-bit and quantized matrices: tile by tile, in sizes that are fast in a BLAS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

from mlx_qwen3.backend.blas import mlx_is_slow
from mlx_qwen3.backend.device import eval_unless_traced, is_cpu

# fp32 bytes of one tile of a matrix that is not stored in fp32. A tile fits the cache of a core.
TILE_BYTES = 8 * 2**20
# Up to this many input rows, reading the matrix bounds the speed. In products of at most a million
# multiplications OpenBLAS reads it once, without rearranging it first: three times faster.
FEW_ROWS = 16
SMALL_PRODUCT = 999_000
# Products of fewer multiplications are as fast in MLX's own BLAS, and are not waited for.
MIN_NUMPY_MULTIPLICATIONS = 2**17

HALF = (mx.bfloat16, mx.float16)


def fp32(array: mx.array) -> mx.array:
    """A 16-bit array in fp32, any other as it is."""
    return array.astype(mx.float32) if array.dtype in HALF else array


def product(x: mx.array, weight: mx.array) -> mx.array:
    """x (..., in) @ weight (out, in).T -> (..., out), with `weight` in fp32."""
    rows = x.size // x.shape[-1]
    if _is_for_numpy(x, weight.T):
        flat = cast(mx.array, _numpy_matmul(x.reshape(rows, -1), weight.T))
        return flat.reshape(*x.shape[:-1], -1)
    step = SMALL_PRODUCT // (rows * x.shape[-1])
    if rows > FEW_ROWS or step == 0 or step >= weight.shape[0]:
        return x @ weight.T
    return mx.concatenate([x @ weight[rows].T for rows in _tiles(weight.shape[0], step)], axis=-1)


def multiply(a: mx.array, b: mx.array) -> mx.array:
    """a (..., M, K) @ b (..., K, N) of the same leading axes -> (..., M, N)."""
    return cast(mx.array, _numpy_matmul(a, b)) if _is_for_numpy(a, b) else a @ b


def _is_for_numpy(a: mx.array, b: mx.array) -> bool:
    if not (is_cpu() and mlx_is_slow() and a.dtype == b.dtype == mx.float32):
        return False
    return a.size * b.shape[-1] >= MIN_NUMPY_MULTIPLICATIONS


@mx.custom_function
def _numpy_matmul(a: mx.array, b: mx.array) -> mx.array:
    """The product by numpy's BLAS, in MLX's memory. `a` and `b` are evaluated now."""
    import numpy as np  # takes a tenth of a second, so only where it is used

    result = mx.zeros((*a.shape[:-1], b.shape[-1]))
    if not eval_unless_traced(a, b, result):
        return a @ b
    np.matmul(np.asarray(a), np.asarray(b), out=np.asarray(result))
    return result


@_numpy_matmul.vjp
def _gradients(
    inputs: tuple[mx.array, mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    a, b = inputs
    return cotangent @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ cotangent


@_numpy_matmul.jvp
def _derivative(inputs: tuple[mx.array, mx.array], tangents: tuple[mx.array, mx.array]) -> mx.array:
    (a, b), (da, db) = inputs, tangents
    return da @ b + a @ db


def tiled_product(x: mx.array, out: int, matrix_rows: Callable[[slice], mx.array]) -> mx.array:
    """x (..., in) @ matrix (out, in).T -> (..., out). `matrix_rows` makes rows of the matrix in fp32."""
    outputs = []
    for rows in _tiles(out, max(1, TILE_BYTES // (4 * x.shape[-1]))):
        output = product(x, matrix_rows(rows))
        eval_unless_traced(output)  # or MLX allocates many tiles before it multiplies with the first
        outputs.append(output)
    return mx.concatenate(outputs, axis=-1)


def _tiles(rows: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, rows, step)]


def _unpacked(words: mx.array, bits: int) -> mx.array:
    """Packed words (..., n) -> their integers (..., 32 / bits * n), in fp32.

    On a CPU this, a product and a sum take a third of the time of MLX's dequantize, for the same result.
    """
    if bits == 8:
        return words.view(mx.uint8).astype(mx.float32)
    if bits == 4:  # spread each byte over two
        pairs = words.view(mx.uint8).astype(mx.uint16)
        return ((pairs | (pairs << 4)) & 0x0F0F).view(mx.uint8).astype(mx.float32)
    shifts = mx.arange(0, 32, bits, dtype=mx.uint32)
    return ((words[..., None] >> shifts) & (2**bits - 1)).astype(mx.float32).flatten(-2)


def dequantize_fp32(
    weight: mx.array, scales: mx.array, biases: mx.array | None, *, group_size: int, bits: int, mode: str
) -> mx.array:
    """Dequantize packed words (..., in * bits / 32) -> (..., in), in fp32 whatever dtype the scales have."""
    scales, biases = fp32(scales), None if biases is None else fp32(biases)
    if is_cpu() and biases is not None and 32 % bits == 0:  # then no value spans two words
        values = _unpacked(weight, bits).reshape(*scales.shape, group_size)
        return (values * scales[..., None] + biases[..., None]).flatten(-2)
    quantization: dict[str, Any] = {"group_size": group_size, "bits": bits, "mode": mode}
    return mx.dequantize(weight, scales, biases, dtype=mx.float32, **quantization)
