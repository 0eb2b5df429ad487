"""Products in MLX's memory: the same numbers, shapes, gradients and traces as MLX's own."""

from __future__ import annotations

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_qwen3.backend import matmul
from mlx_qwen3.backend.stored_matrix import StoredMatrix


@pytest.fixture(autouse=True)
def by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever BLAS MLX has here, and however small the product."""
    monkeypatch.setattr(matmul, "has_kernels", lambda: True)
    monkeypatch.setattr(matmul, "is_cpu", lambda: True)
    monkeypatch.setattr(matmul, "MIN_KERNEL_MULTIPLICATIONS", 0)


def by_kernel(x: mx.array, weight: mx.array) -> mx.array:
    """x @ weight.T, with a gradient for both."""
    return matmul.stored_product(x, StoredMatrix(weight), lambda x, w=weight: x @ w.T, weight=weight)


sizes = st.integers(1, 40)


@settings(max_examples=40, deadline=None)
@given(
    leading=st.lists(st.integers(1, 3), max_size=2),
    rows=sizes,
    inner=sizes,
    out=sizes,
    seed=st.integers(0, 99),
)
def test_the_same_numbers_as_mlx(leading: list[int], rows: int, inner: int, out: int, seed: int) -> None:
    mx.random.seed(seed)
    a = mx.random.normal((*leading, rows, inner))
    b = mx.random.normal((*leading, out, inner)).swapaxes(-1, -2)  # a view
    assert mx.allclose(matmul.multiply(a, b), a @ b, atol=1e-4)
    weight, x = mx.random.normal((out + 2, inner))[1:-1], a.reshape(-1, inner)
    product = by_kernel(x, weight)
    assert product.shape == (len(x), out)
    assert mx.allclose(product, x @ weight.T, atol=1e-4)


def test_gradients_pass_through() -> None:
    x, weight = mx.random.normal((5, 8)), mx.random.normal((6, 8))
    by_numpy = mx.grad(lambda x, w: (by_kernel(x, w) ** 2).sum(), argnums=(0, 1))(x, weight)
    by_mlx = mx.grad(lambda x, w: ((x @ w.T) ** 2).sum(), argnums=(0, 1))(x, weight)
    assert all(mx.allclose(a, b, atol=1e-3) for a, b in zip(by_numpy, by_mlx, strict=True))


def test_traces_are_of_mlx() -> None:
    x, weight = mx.random.normal((4, 8)), mx.random.normal((6, 8))
    assert mx.allclose(mx.compile(lambda x: by_kernel(x, weight))(x), x @ weight.T, atol=1e-4)
    assert mx.allclose(mx.vmap(lambda row: by_kernel(row[None], weight)[0])(x), x @ weight.T, atol=1e-4)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_other_formats_are_left_to_mlx(dtype: mx.Dtype) -> None:
    a = mx.random.normal((3, 8)).astype(dtype)
    assert matmul.multiply(a, a.T).dtype == dtype
