"""exp by numpy equals MLX's: values, limits of the range, derivatives, arrays of any layout."""

from collections.abc import Callable

import pytest

from mlx_qwen3.backend import exp as exp_module
from mlx_qwen3.backend.exp import MIN_NUMPY_SIZE, exp, sigmoid

import mlx.core as mx  # isort: skip  # after mlx_qwen3, which loads the BLAS

Function = Callable[[mx.array], mx.array]


def numbers(*shape: int) -> mx.array:
    return 4 * mx.random.normal(shape, key=mx.random.key(0))


def close(a: mx.array, b: mx.array) -> bool:
    return bool(mx.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True))


@pytest.fixture(autouse=True)
def everything_numpy_exp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exp_module, "MIN_NUMPY_SIZE", 0)
    monkeypatch.setattr(exp_module.sys, "platform", "linux")


@pytest.mark.parametrize(
    "x",
    [
        numbers(7, 300),
        numbers(300, 7).T[::2, 5:],
        mx.broadcast_to(numbers(3), (50, 3)),
        mx.array([0.0, -0.0, 88.0, 89.0, -104.0, mx.inf, -mx.inf, mx.nan]),
        mx.array(1.5),
        mx.zeros((0, 4)),
    ],
    ids=["rows", "strided", "broadcast", "ends", "scalar", "none"],
)
def test_values_are_those_of_mlx(x: mx.array, recwarn: pytest.WarningsRecorder) -> None:
    before = mx.array(x)
    assert close(exp(x), mx.exp(x))
    assert close(x, before)
    assert not recwarn.list


def test_half_precision_is_kept() -> None:
    assert exp(numbers(9).astype(mx.bfloat16)).dtype == mx.bfloat16


@pytest.mark.parametrize(
    "transformed",
    [
        lambda f: mx.grad(lambda x: (f(2 * x) * x).sum()),
        lambda f: mx.grad(lambda x: mx.grad(lambda y: f(y).sum())(x).sum()),
        lambda f: lambda x: mx.jvp(f, [x], [x])[1][0],
        lambda f: mx.vmap(f),
        lambda f: mx.compile(f),
    ],
    ids=["gradient", "second", "jvp", "vmap", "compiled"],
)
def test_transformations_are_those_of_mlx(transformed: Callable[[Function], Function]) -> None:
    x = numbers(5, 40)
    assert close(transformed(exp)(x), transformed(mx.exp)(x))


def test_sigmoid_is_that_of_mlx() -> None:
    x = mx.concatenate([numbers(300), mx.array([100.0, -100.0, mx.inf, -mx.inf, mx.nan])])
    assert close(sigmoid(x), mx.sigmoid(x))
    assert close(
        mx.grad(lambda x: sigmoid(x).sum())(x[:300]), mx.grad(lambda x: mx.sigmoid(x).sum())(x[:300])
    )


def test_mlx_computes_small_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exp_module, "MIN_NUMPY_SIZE", MIN_NUMPY_SIZE)
    sizes: list[int] = []
    monkeypatch.setattr(exp_module, "_numpy_exp", lambda x: sizes.append(x.size) or mx.exp(x))
    exp(numbers(100))
    exp(numbers(MIN_NUMPY_SIZE))
    assert sizes == [MIN_NUMPY_SIZE]
