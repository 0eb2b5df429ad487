"""Products with stored matrices: every format, odd shapes, 1 to 40 rows, against dequantized numpy."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3.backend.switches import has_kernels

if not has_kernels():
    pytest.skip("kernels are for Linux CPUs", allow_module_level=True)

from mlx_qwen3.backend.stored_matrix import FEW_ROWS, Part, StoredMatrix

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
AFFINE = [
    *((bits, 64, "bfloat16") for bits in (2, 3, 4, 5, 6, 8)),
    *((4, group_size, "bfloat16") for group_size in (32, 128)),
    (4, 64, "float16"),
    (3, 32, "float32"),
]
SMALL_FLOATS = [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]
ROWS = (1, 2, 3, 4, 5, 8, FEW_ROWS, FEW_ROWS + 1, 40)


def affine(bits: int, group_size: int, scales: str, outputs: int, width: int) -> tuple[StoredMatrix, Any]:
    """A matrix, and its numbers as MLX dequantizes them."""
    matrix = mx.random.normal((outputs, width), key=mx.random.key(bits))
    packed, *grid = mx.quantize(matrix, group_size=group_size, bits=bits)
    grid = [array.astype(DTYPES[scales]) for array in grid]
    numbers = mx.dequantize(packed, *(a.astype(mx.float32) for a in grid), group_size=group_size, bits=bits)
    return StoredMatrix(packed, *grid, group_size, bits, "affine"), np.array(numbers)


def check(matrix: StoredMatrix, numbers: Any) -> None:
    outputs, width = numbers.shape
    unpacked = np.zeros_like(numbers)
    matrix.unpack(unpacked)
    np.testing.assert_array_equal(unpacked, numbers)
    some = np.array([outputs - 1, 0, outputs // 2], np.int64)
    chosen = np.zeros((3, width), np.float32)
    matrix.unpack(chosen, some)
    np.testing.assert_array_equal(chosen, numbers[some])
    for rows in ROWS:
        x = np.random.default_rng(rows).standard_normal((rows, width), np.float32)
        y = np.full((rows, outputs), np.nan, np.float32)
        matrix.product(x, y, [Part(0, outputs, 0, rows)])
        expected = x.astype(np.float64) @ numbers.T
        np.testing.assert_allclose(y, expected, atol=2e-6 * np.abs(expected).max(), err_msg=str(rows))


@pytest.mark.parametrize("storage", AFFINE, ids=str)
def test_affine_products_are_those_of_the_dequantized_matrix(storage: tuple[int, int, str]) -> None:
    check(*affine(*storage, outputs=53, width=384))


@pytest.mark.parametrize(("mode", "bits", "group_size"), SMALL_FLOATS)
def test_small_floats_are_those_of_mlx(mode: str, bits: int, group_size: int) -> None:
    matrix = 3 * mx.random.normal((53, 128), key=mx.random.key(1))
    packed, scales = mx.quantize(matrix, group_size=group_size, bits=bits, mode=mode)
    layout = {"group_size": group_size, "bits": bits, "mode": mode}
    numbers = mx.dequantize(packed, scales, dtype=mx.float32, **layout)
    check(StoredMatrix(packed, scales, None, **layout), np.array(numbers))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [5, 64, 131])
def test_plain_matrices_of_any_width(dtype: str, width: int) -> None:
    matrix = mx.random.normal((37, width), key=mx.random.key(width)).astype(DTYPES[dtype])
    check(StoredMatrix(matrix), np.array(matrix.astype(mx.float32)))


def test_views_that_are_not_contiguous() -> None:
    whole = mx.random.normal((40, 96), key=mx.random.key(3))
    for view in (whole[::2], whole[:, 8:72], whole.T, whole[5:-5, ::3]):
        check(StoredMatrix(view), np.ascontiguousarray(view))


def test_each_part_of_the_rows_meets_its_own_part_of_the_matrix() -> None:
    matrix, numbers = affine(4, 64, "bfloat16", outputs=4 * 24, width=128)
    parts = [Part(48, 24, 0, 1), Part(0, 24, 1, 4), Part(72, 24, 4, 30)]
    x = np.random.default_rng(0).standard_normal((30, 128), np.float32)
    y = np.zeros((30, 24), np.float32)
    matrix.product(x, y, parts)
    for first, outputs, start, stop in parts:
        expected = x[start:stop] @ numbers[first : first + outputs].T
        np.testing.assert_allclose(y[start:stop], expected, atol=1e-4)
    back = np.zeros_like(x)
    matrix.product_back(y, back, parts)
    for first, outputs, start, stop in parts:
        expected = y[start:stop] @ numbers[first : first + outputs]
        np.testing.assert_allclose(back[start:stop], expected, atol=1e-3)


def test_large_products_are_shared_by_threads_and_stay_exact() -> None:
    matrix, numbers = affine(4, 64, "bfloat16", outputs=1000, width=1024)
    x = np.random.default_rng(0).standard_normal((64, 1024), np.float32)
    expected = x.astype(np.float64) @ numbers.T
    for rows in (1, 64) * 20:
        y = np.full((rows, 1000), np.nan, np.float32)
        matrix.product(x[:rows], y, [Part(0, 1000, 0, rows)])
        np.testing.assert_allclose(y, expected[:rows], atol=1e-3)
