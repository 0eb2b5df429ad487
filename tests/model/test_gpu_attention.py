"""Attention as a GPU would be given it: which products are called, with stand-ins for Metal and CUDA."""

from __future__ import annotations

from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import pytest

from mlx_qwen3.cache.rows import Layout, quantize
from mlx_qwen3.model import attention_kernels
from mlx_qwen3.model.attention_kernels import attend

D, ROWS, KEY_HEADS = 64, 40, 2


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The products with quantized rows: how many queries, and whether transposed."""
    calls: list[tuple[int, bool]] = []
    original = mx.quantized_matmul

    def record(x: mx.array, *arrays: mx.array, transpose: bool = True, **options: Any) -> mx.array:
        calls.append((x.shape[-2], transpose))
        return original(x, *arrays, transpose=transpose, **options)

    monkeypatch.setattr(mx, "quantized_matmul", record)
    monkeypatch.setattr(attention_kernels, "is_cpu", lambda: False)
    return calls


def attention(heads: int, queries: int) -> tuple[mx.array, mx.array]:
    """Attention to quantized rows, and to the same rows unpacked."""
    q = mx.random.normal((1, heads, queries, D), key=mx.random.key(0))
    stored = [
        quantize(mx.random.normal((1, KEY_HEADS, ROWS, D), key=mx.random.key(i)), Layout(64, 8))
        for i in (1, 2)
    ]
    plain = [mx.dequantize(*rows, group_size=64, bits=8) for rows in stored]
    mask = "causal" if queries > 1 else None
    expected = mx.fast.scaled_dot_product_attention(q, *plain, scale=D**-0.5, mask=mask)
    return attend(q, stored[0], stored[1], D**-0.5, mask), expected


def test_metal_multiplies_values_by_three_queries_at_a_time(
    products: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_kernels, "is_metal", lambda: True)
    got, expected = attention(heads=8 * KEY_HEADS, queries=1)
    assert mx.allclose(got, expected, atol=1e-4)
    assert products == [(8, True), (3, False), (3, False), (2, False)]


def test_a_draft_reads_quantized_rows_as_they_are_stored(
    products: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_kernels, "is_metal", lambda: True)
    got, expected = attention(heads=5 * KEY_HEADS, queries=9)
    assert mx.allclose(got, expected, atol=1e-4)
    assert products[0] == (45, True)


@pytest.mark.parametrize("queries", [1, 9])
def test_cuda_multiplies_no_rows_that_are_stored_quantized(
    products: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch, queries: int
) -> None:
    monkeypatch.setattr(attention_kernels, "is_cuda", lambda: True)
    got, expected = attention(heads=2 * KEY_HEADS, queries=queries)
    assert mx.allclose(got, expected, atol=1e-4)
    assert products == []


def test_long_prompts_over_quantized_rows_wait_for_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[tuple[int, ...]] = []
    monkeypatch.setattr(attention_kernels, "is_cpu", lambda: False)
    monkeypatch.setattr(
        attention_kernels, "eval_unless_traced", lambda *arrays: waited.append(arrays[0].shape)
    )
    monkeypatch.setattr(attention_kernels, "FEW_QUERIES_GPU", 0)
    attention(heads=4, queries=9)
    assert waited == []
    monkeypatch.setattr(attention_kernels, "WAIT_FROM_ROWS", ROWS)
    attention(heads=4, queries=9)
    assert waited == [(1, 4, 9, D)]
