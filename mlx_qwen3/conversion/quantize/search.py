"""Searches for the scale and offset of each group that have the least squared error.

`mx.quantize` spans a group from its smallest to its largest weight, so one outlier makes the steps coarse
for all. Here several narrower spans are tried. Each is improved by least squares: nearest codes, then the
best scale and offset for these codes. The best is kept, as measured with the scale and offset that are
stored. The format stays the same, and so does the speed.
"""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.model.config import Quantization

SPANS = (1.0, 0.9, 0.8, 0.7, 0.6)  # widths tried, as fractions of a group's span
FIRST_REFITS, LAST_REFITS = 1, 5  # rounds of least squares for each of these, and for the best one
TINY = 1e-7  # the smallest scale, as in mx.quantize
# Weights quantized at once: temporaries stay in a core's cache; a GPU waits for each tile.
TILE, TILE_GPU = 2**18, 2**22

Grid = tuple[mx.array, mx.array]
"""Scale and offset (MLX's bias) of each group, in fp32, (..., groups, 1)."""


def quantize_searched(
    weight: mx.array, quantization: Quantization, importance: mx.array | None = None
) -> tuple[mx.array, mx.array, mx.array]:
    """Quantize a matrix (rows, width) as `mx.quantize` does, with less error, and in no group with more.

    importance: weight of the squared errors of each column, (width,), zero or more; None is equal weights.
    Returns packed codes, and scales and biases in the dtype of `weight`.
    """
    step = max(1, (TILE if is_cpu() else TILE_GPU) // weight.shape[1])
    tiles = (weight[start : start + step] for start in range(0, weight.shape[0], step))
    parts = [_quantize(tile, quantization, importance) for tile in tiles]
    packed, scales, biases = (mx.concatenate(list(part)) for part in zip(*parts, strict=True))
    return packed, scales, biases


def _quantize(
    weight: mx.array, quantization: Quantization, importance: mx.array | None
) -> tuple[mx.array, mx.array, mx.array]:
    groups = weight.astype(mx.float32).reshape(weight.shape[0], -1, quantization.group_size)
    if importance is not None:
        importance = importance.astype(mx.float32).reshape(1, -1, quantization.group_size)
    grid = search(groups, quantization.bits, weight.dtype, importance)
    codes = nearest(groups, grid, quantization.bits).astype(mx.uint32)
    scales, biases = (part.squeeze(-1).astype(weight.dtype) for part in grid)
    result = pack(codes.reshape(weight.shape), quantization.bits), scales, biases
    mx.eval(result)
    return result


def search(groups: mx.array, bits: int, dtype: mx.Dtype, importance: mx.array | None = None) -> Grid:
    """The best grid for each of `groups` (..., groups, group size) in fp32; `dtype` stores it exactly."""
    if importance is None:
        importance = mx.ones(groups.shape[-1])
    # The plain grid comes first, and is kept where every error is NaN, as of a group of zeros whose scale a
    # device has flushed to zero.
    candidates = _candidates(groups, bits, dtype, importance)
    best = next(candidates)
    error, best = _better(groups, bits, dtype, importance, best, mx.array(mx.inf), best)
    for grid in candidates:
        error, best = _better(groups, bits, dtype, importance, grid, error, best)
    refined = _refit(groups, best, bits, importance, LAST_REFITS)
    return _better(groups, bits, dtype, importance, refined, error, best)[1]


def _candidates(groups: mx.array, bits: int, dtype: mx.Dtype, importance: mx.array) -> Iterator[Grid]:
    """The grid of `mx.quantize`, then those of SPANS, each refitted."""
    matrix = groups.reshape(-1, groups.shape[-1]).astype(dtype)
    _, *plain = mx.quantize(matrix, group_size=groups.shape[-1], bits=bits)
    scale, offset = (part.astype(mx.float32).reshape(*groups.shape[:-1], 1) for part in plain)
    yield scale, offset
    low, high = groups.min(axis=-1, keepdims=True), groups.max(axis=-1, keepdims=True)
    for span in SPANS:
        scale = mx.maximum((high - low) * (span / (2**bits - 1)), TINY)
        offset = low + (high - low) * ((1 - span) / 2)
        yield _refit(groups, (scale, offset), bits, importance, FIRST_REFITS)


def _refit(groups: mx.array, grid: Grid, bits: int, importance: mx.array, times: int) -> Grid:
    """`grid` after `times` rounds of: nearest codes, then the least-squares grid for these codes."""
    total = importance.sum(axis=-1, keepdims=True) + TINY**2
    mean = (importance * groups).sum(axis=-1, keepdims=True) / total
    weighted = importance * (groups - mean)
    for _ in range(times):
        codes = nearest(groups, grid, bits)
        middle = (importance * codes).sum(axis=-1, keepdims=True) / total
        spread = (importance * codes * (codes - middle)).sum(axis=-1, keepdims=True)
        slope = (weighted * codes).sum(axis=-1, keepdims=True) / mx.maximum(spread, TINY**2)
        scale = mx.where(slope > TINY, slope, grid[0])
        grid = scale, mean - scale * middle
    return grid


def _better(
    groups: mx.array,
    bits: int,
    dtype: mx.Dtype,
    importance: mx.array,
    grid: Grid,
    error: mx.array,
    best: Grid,
) -> tuple[mx.array, Grid]:
    """Error and grid of each group: those of `grid`, rounded to `dtype`, where its error is less."""
    scale, offset = (part.astype(dtype).astype(mx.float32) for part in grid)
    difference = groups - (scale * nearest(groups, (scale, offset), bits) + offset)
    new_error = (importance * difference * difference).sum(axis=-1, keepdims=True)
    is_better = new_error < error
    chosen = mx.where(is_better, scale, best[0]), mx.where(is_better, offset, best[1])
    return mx.where(is_better, new_error, error), chosen


def nearest(groups: mx.array, grid: Grid, bits: int) -> mx.array:
    """The code of the grid point nearest to each weight, as a float."""
    scale, offset = grid
    return mx.clip(mx.round((groups - offset) / scale), 0, 2**bits - 1)


def pack(codes: mx.array, bits: int) -> mx.array:
    """Codes (rows, width) uint32 -> words (rows, width * bits / 32): a stream of bits, lowest first."""
    codes = codes.reshape(codes.shape[0], -1, 32)
    words = []
    for word in range(bits):
        value = mx.zeros(codes.shape[:-1], mx.uint32)
        for index in range(word * 32 // bits, ((word + 1) * 32 + bits - 1) // bits):
            shift = index * bits - word * 32
            code = codes[..., index]
            value = value | (code << shift if shift >= 0 else code >> -shift)
        words.append(value)
    return mx.stack(words, axis=-1).reshape(codes.shape[0], -1)
