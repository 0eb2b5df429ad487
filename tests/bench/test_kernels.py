"""Kernels of a decoded token, counted on the graph: fewer than mlx-lm starts."""

from __future__ import annotations

import pytest

from benchmarks import kernels

LAYERS = kernels.LAYERS
# What mlx-lm 0.32.2 starts for 28 layers, as `python -m benchmarks.kernels` counts.
MLX_LM_DENSE, MLX_LM_MOE = 538, 846


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> object:
    """Counts for a few layers, as they would be for all 28: every layer starts as many."""

    def total(raw: dict[str, object], **options: object) -> int:
        counts = []
        for layers in (2, 3):
            found = kernels.our_step({**raw, "num_hidden_layers": layers}, **options)
            counts.append(sum(found.values()))
        a_layer = counts[1] - counts[0]
        return counts[1] + (LAYERS - 3) * a_layer

    return total


def test_a_dense_step_starts_fewer_kernels_than_mlx_lms(count) -> None:
    assert count(kernels.DENSE) <= 454 < MLX_LM_DENSE
    assert count(kernels.DENSE, max_size=64) <= 454


def test_a_step_of_a_mixture_starts_fewer_kernels_than_mlx_lms(count) -> None:
    assert count(kernels.MOE) <= 678 < MLX_LM_MOE


def test_the_sampler_starts_few_kernels() -> None:
    assert sum(kernels.our_sampler().values()) <= 29


def test_a_batch_of_unequal_lengths_is_not_padded(count) -> None:
    found = kernels.our_ragged_step({**kernels.DENSE, "num_hidden_layers": 2}, batch=3)
    assert "Pad" not in found
    assert found["Concatenate"] == 2  # one a layer, which joins what the sequences attended to
    assert found["SliceUpdate"] == 2 * 2 * 3


def test_the_count_sees_every_kernel() -> None:
    import mlx.core as mx

    x, y = mx.zeros((4, 4)), mx.zeros(8)
    mx.eval(x, y)
    assert kernels.kernels(mx.exp(x).reshape(2, 8)[:1] + y) == {"Exp": 1, "Add": 1}
