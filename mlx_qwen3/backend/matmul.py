"""Products in fp32 by the kernels of `stored_matrix`, computed now and in MLX's memory.

MLX's graph takes part as far as it must: gradients pass through, and while it is traced (mx.compile, mx.vmap)
its own operations stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx

from mlx_qwen3.backend.device import eval_unless_traced, is_cpu
from mlx_qwen3.backend.switches import has_kernels

if TYPE_CHECKING:
    from mlx_qwen3.backend.stored_matrix import Part, StoredMatrix

# fp32 bytes of one tile of a matrix, where MLX multiplies with a matrix that is not stored in fp32.
TILE_BYTES = 8 * 2**20
# Products of two arrays that are smaller are as fast in MLX's own BLAS, and are not waited for.
MIN_KERNEL_MULTIPLICATIONS = 2**17

HALF = (mx.bfloat16, mx.float16)


def fp32(array: mx.array) -> mx.array:
    """A 16-bit array in fp32, any other as it is."""
    return array.astype(mx.float32) if array.dtype in HALF else array


def multiply(a: mx.array, b: mx.array) -> mx.array:
    """a (..., M, K) @ b (..., K, N) of the same leading axes -> (..., M, N)."""
    return cast(mx.array, _kernel_matmul(a, b)) if _is_for_kernels(a, b) else a @ b


def _is_for_kernels(a: mx.array, b: mx.array) -> bool:
    if not (is_cpu() and has_kernels() and a.dtype == b.dtype == mx.float32):
        return False
    return a.size * b.shape[-1] >= MIN_KERNEL_MULTIPLICATIONS


@mx.custom_function
def _kernel_matmul(a: mx.array, b: mx.array) -> mx.array:
    """The product by kernels, in MLX's memory. `a` and `b` are evaluated now."""
    import numpy as np  # takes a tenth of a second, so only where it is used

    from mlx_qwen3.backend.stored_matrix import multiply_arrays

    result = mx.zeros((*a.shape[:-1], b.shape[-1]))
    if not eval_unless_traced(a, b, result):
        return a @ b
    multiply_arrays(np.asarray(a), np.asarray(b), np.asarray(result))
    return result


@_kernel_matmul.vjp
def _gradients(
    inputs: tuple[mx.array, mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    a, b = inputs
    return multiply(cotangent, b.swapaxes(-1, -2)), multiply(a.swapaxes(-1, -2), cotangent)


@_kernel_matmul.jvp
def _derivative(inputs: tuple[mx.array, mx.array], tangents: tuple[mx.array, mx.array]) -> mx.array:
    (a, b), (da, db) = inputs, tangents
    return multiply(da, b) + multiply(a, db)


def stored_product(
    x: mx.array,
    matrix: StoredMatrix,
    by_mlx: Callable[..., mx.array],
    parts: Sequence[Part] | None = None,
    weight: mx.array | None = None,
) -> mx.array:
    """x (rows, in) @ matrix.T -> (rows, out) in fp32; computed now.

    Args:
        x: The input, in fp32.
        matrix: The matrix.
        by_mlx: The same of `x` (and `weight`) by MLX's operations, for traces.
        parts: The rows of the matrix that each row of x is multiplied with; None is all.
        weight: The matrix as an array, if it is to have a gradient.
    """
    import numpy as np

    from mlx_qwen3.backend.stored_matrix import Part

    chosen = [Part(0, matrix.stored.outputs, 0, len(x))] if parts is None else parts

    def forward(x: mx.array, *weights: mx.array) -> mx.array:
        y = mx.zeros((len(x), chosen[0].outputs if chosen else 0))
        rows = mx.contiguous(x)
        if not eval_unless_traced(rows, y):
            return by_mlx(x, *weights)
        matrix.product(np.asarray(rows), np.asarray(y), chosen)
        return y

    def backward(inputs: Any, cotangent: mx.array, _: mx.array) -> Any:
        x, *weights = inputs if isinstance(inputs, tuple | list) else [inputs]
        gradient, rows = mx.zeros(x.shape), mx.contiguous(cotangent)
        if not eval_unless_traced(rows, gradient):
            return mx.vjp(by_mlx, [x, *weights], [cotangent])[1]
        matrix.product_back(np.asarray(rows), np.asarray(gradient), chosen)
        if not weights:
            return gradient
        return gradient, multiply(cotangent.T, x).astype(weights[0].dtype)

    def derivative(inputs: Any, tangents: Any) -> mx.array:
        as_list = [list(each) if isinstance(each, tuple | list) else [each] for each in (inputs, tangents)]
        return mx.jvp(by_mlx, *as_list)[1][0]

    function = mx.custom_function(forward)
    function.vjp(backward)
    function.jvp(derivative)
    return cast(mx.array, function(x) if weight is None else function(x, weight))


def tiled_product(x: mx.array, out: int, matrix_rows: Callable[[slice], mx.array]) -> mx.array:
    """x (..., in) @ matrix (out, in).T -> (..., out). `matrix_rows` makes rows of the matrix in fp32."""
    outputs = []
    step = max(1, TILE_BYTES // (4 * x.shape[-1]))
    for start in range(0, out, step):
        output = multiply(x, matrix_rows(slice(start, start + step)).T)
        eval_unless_traced(output)  # or MLX allocates many tiles before it multiplies with the first
        outputs.append(output)
    return mx.concatenate(outputs, axis=-1)


def dequantize_fp32(
    weight: mx.array, scales: mx.array, biases: mx.array | None, *, group_size: int, bits: int, mode: str
) -> mx.array:
    """Dequantize packed words (..., in * bits / 32) -> (..., in), in fp32 whatever dtype the scales have."""
    quantization: dict[str, Any] = {"group_size": group_size, "bits": bits, "mode": mode}
    arrays = [array for array in (weight, scales, biases) if array is not None]
    if is_cpu() and has_kernels() and eval_unless_traced(*arrays):
        from mlx_qwen3.backend.stored_matrix import StoredMatrix

        return StoredMatrix(weight, scales, biases, **quantization).dequantized(weight.shape[:-1])
    scales, biases = fp32(scales), None if biases is None else fp32(biases)
    return mx.dequantize(weight, scales, biases, dtype=mx.float32, **quantization)
