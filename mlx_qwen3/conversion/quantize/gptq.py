"""GPTQ (https://arxiv.org/abs/2210.17323): quantizes a matrix so that its outputs on a text change least.

Columns are rounded one after another. The error of each is compensated in the columns not rounded yet, in
the way that changes the output least on the calibration text. Here the scale and offset of a group are
searched for when its first column is reached, on weights that include the compensation so far.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlx_qwen3.conversion.quantize.search import nearest, pack, search
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import Quantization

Moments = list[mx.array]
"""Second moments of a matrix's input, or their factors: the blocks (columns, columns) on the diagonal, in
fp32. The last one may be smaller."""

# Added to the diagonal, as a fraction of the mean second moment. With 0.01 the error on the text was the
# same, but weights moved further in directions that the text does not use.
DAMPING = 0.1


def quantize_gptq(
    weight: mx.array, quantization: Quantization, factors: Moments
) -> tuple[mx.array, mx.array, mx.array]:
    """Quantize a matrix (rows, width) as `mx.quantize` does, with less error in its output.

    factors: what `factorize` returns for the second moments of its input.
    """
    parts = []
    first = 0
    for factor in factors:
        columns = slice(first, first := first + factor.shape[0])
        parts.append(_quantize_block(weight[:, columns], quantization, factor))
    packed, scales, biases = (mx.concatenate(list(part), axis=1) for part in zip(*parts, strict=True))
    return packed, scales, biases


def factorize(moments: Moments) -> Moments:
    """The upper Cholesky factor of each block's inverse, by which errors are compensated.

    Raises ConversionError for moments that are not finite.
    """
    return [_factor(np.array(block, np.float64)) for block in moments]


def _factor(block: np.ndarray) -> mx.array:
    if not np.isfinite(block).all():
        raise ConversionError(
            "activations overflow on the calibration text; convert from bfloat16 or float32 weights"
        )
    size = len(block)
    damped = block + np.eye(size) * (DAMPING * np.trace(block) / size + 1e-12)
    return mx.array(np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32))


def _quantize_block(
    weight: mx.array, quantization: Quantization, factor: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    """Quantize the columns of one block."""
    size, bits = quantization.group_size, quantization.bits
    left = weight.astype(mx.float32)  # the columns not rounded yet, with the compensation so far
    codes, scales, offsets = [], [], []
    for first in range(0, weight.shape[1], size):
        within = factor[first : first + size, first : first + size]
        importance = 1 / mx.diag(within) ** 2
        group, left = left[:, :size], left[:, size:]
        grid = search(group[:, None], bits, weight.dtype, importance)
        scale, offset = grid[0][:, 0, 0], grid[1][:, 0, 0]
        group_codes, errors = _round_group(group.T, (scale, offset), bits, within)
        left = left - errors.T @ factor[first : first + size, first + size :]
        mx.eval(group_codes, left)
        codes.append(group_codes.T)
        scales.append(scale)
        offsets.append(offset)
    packed = pack(mx.concatenate(codes, axis=1).astype(mx.uint32), bits)
    stacked_scales, biases = (mx.stack(part, axis=1).astype(weight.dtype) for part in (scales, offsets))
    return packed, stacked_scales, biases


def _round_group(
    columns: mx.array, grid: tuple[mx.array, mx.array], bits: int, factor: mx.array
) -> tuple[mx.array, mx.array]:
    """Codes of the columns of a group, and errors divided by the factor's diagonal, (columns, rows) each."""
    scale, offset = grid
    codes, errors = [], []
    for index in range(columns.shape[0]):
        column, columns = columns[0], columns[1:]
        code = nearest(column, grid, bits)
        error = (column - (scale * code + offset)) / factor[index, index]
        columns = columns - factor[index, index + 1 :, None] * error
        codes.append(code)
        errors.append(error)
    return mx.stack(codes), mx.stack(errors)
