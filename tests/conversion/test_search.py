"""Searched scales have less error than MLX's rounding, in its format, and in no group more."""

from __future__ import annotations

from pathlib import Path

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlx_qwen3.conversion.quantize.search import nearest, pack, quantize_searched, search
from mlx_qwen3.model.config import Quantization

DTYPES = [mx.bfloat16, mx.float16, mx.float32]
FORMATS = [(bits, group_size) for bits in (2, 3, 4, 5, 6, 8) for group_size in (32, 64, 128)]


def heavy_tailed(rows: int, width: int, seed: int = 0, freedom: float = 5) -> np.ndarray:
    """Weights with outliers, as Student's t has them."""
    values = np.random.default_rng(seed).standard_t(freedom, (rows, width)) * 0.02
    return values.astype(np.float32)


def dequantized(parts: list[mx.array] | tuple[mx.array, ...], bits: int, group_size: int) -> np.ndarray:
    """The weights in fp32, not rounded again."""
    packed, *grid = parts
    scales, biases = (part.astype(mx.float32) for part in grid)
    return np.array(mx.dequantize(packed, scales, biases, group_size=group_size, bits=bits))


def errors(weight: mx.array, parts: list[mx.array] | tuple[mx.array, ...], bits: int, group_size: int):
    """Squared error of each group."""
    off = dequantized(parts, bits, group_size) - np.array(weight.astype(mx.float32))
    return (off.astype(np.float64) ** 2).reshape(weight.shape[0], -1, group_size).sum(-1)


@pytest.mark.parametrize(("bits", "group_size"), FORMATS)
def test_packed_as_mlx_packs(bits, group_size):
    weight = mx.array(heavy_tailed(7, 384, bits))
    packed, scales, biases = mx.quantize(weight, group_size=group_size, bits=bits)
    values = np.array(mx.dequantize(packed, scales, biases, group_size=group_size, bits=bits))
    grid = [np.array(part)[..., None] for part in (scales, biases)]
    codes = np.rint((values.reshape(7, -1, group_size) - grid[1]) / grid[0]).reshape(7, -1)
    assert mx.array_equal(pack(mx.array(codes.astype(np.uint32)), bits), packed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bits", "group_size"), FORMATS)
def test_dequantizes_to_what_was_computed(bits, group_size, dtype):
    weight = mx.array(heavy_tailed(8, 256)).astype(dtype)
    packed, scales, biases = quantize_searched(weight, Quantization(bits, group_size))
    assert scales.dtype == biases.dtype == dtype
    assert packed.shape == mx.quantize(weight, group_size=group_size, bits=bits)[0].shape
    groups = weight.astype(mx.float32).reshape(8, -1, group_size)
    scale, offset = search(groups, bits, dtype)
    expected = scale * nearest(groups, (scale, offset), bits) + offset
    got = dequantized((packed, scales, biases), bits, group_size)
    np.testing.assert_allclose(got, np.array(expected).reshape(8, -1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("freedom", [3, 5, 8])
def test_fifteen_percent_less_error_on_heavy_tails(bits, freedom):
    weight = mx.array(heavy_tailed(256, 1024, freedom=freedom)).astype(mx.bfloat16)
    plain = errors(weight, mx.quantize(weight, group_size=64, bits=bits), bits, 64).sum()
    searched = errors(weight, quantize_searched(weight, Quantization(bits, 64)), bits, 64).sum()
    assert searched <= 0.85 * plain


@settings(max_examples=40, deadline=None)
@example((2, 32), mx.float16, 13, 30.0, "outlier")  # up to the largest float16
@given(
    st.sampled_from(FORMATS),
    st.sampled_from(DTYPES),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-9, 1e-4, 0.02, 30.0]),
    st.sampled_from(["normal", "constant", "zero", "outlier", "two", "offset"]),
)
def test_no_group_is_worse_than_plain(form, dtype, seed, size, kind):
    bits, group_size = form
    values = np.random.default_rng(seed).standard_normal((3, 256))
    if kind == "constant":
        values[:] = values[:, :1]
    elif kind == "zero":
        values[1:] = 0
    elif kind == "outlier":
        values[:, 5] *= 1000
    elif kind == "two":
        values = np.sign(values)
    elif kind == "offset":
        values += 10
    values = np.clip(values * size, -65504, 65504)  # float16 ends there; infinite weights are refused
    weight = mx.array(values.astype(np.float32)).astype(dtype)
    plain = errors(weight, mx.quantize(weight, group_size=group_size, bits=bits), bits, group_size)
    searched = errors(weight, quantize_searched(weight, Quantization(bits, group_size)), bits, group_size)
    assert np.isfinite(searched).all()
    assert (searched <= plain * (1 + 1e-4) + 1e-12 * size**2).all()


def test_columns_that_count_more_get_less_error():
    weight = mx.array(heavy_tailed(64, 256)).astype(mx.bfloat16)
    importance = np.random.default_rng(1).gamma(0.3, size=256).astype(np.float32)
    importance[:64] = 0  # a group that does not count

    def weighted(parts):
        return ((dequantized(parts, 4, 64) - np.array(weight.astype(mx.float32))) ** 2 * importance).sum()

    without = quantize_searched(weight, Quantization(4, 64))
    informed = quantize_searched(weight, Quantization(4, 64), mx.array(importance))
    assert weighted(informed) < 0.9 * weighted(without)


def test_a_recipe_converts_what_both_load(tmp_path: Path):
    from mlx_lm.utils import load_model as mlx_lm_load
    from scripted import write_byte_tokenizer
    from tiny_checkpoints import MOE, logits, write_checkpoint

    from mlx_qwen3 import convert, load_model
    from mlx_qwen3.model.config import read_json

    write_checkpoint(write_byte_tokenizer(tmp_path / "source"), MOE)
    for recipe in ("plain", "searched", "mixed"):
        report = convert(tmp_path / "source", tmp_path / recipe, recipe=recipe, group_size=32)
        assert report.bits_per_weight < (9 if recipe == "mixed" else 7)
        expected = logits(mlx_lm_load(tmp_path / recipe)[0])
        np.testing.assert_allclose(logits(load_model(tmp_path / recipe)), expected, atol=1e-4)
    source = logits(load_model(tmp_path / "source"))
    loss = {
        r: np.abs(logits(load_model(tmp_path / r)) - source).mean() for r in ("plain", "searched", "mixed")
    }
    assert loss["mixed"] < loss["searched"] < loss["plain"]
    layers = read_json(tmp_path / "mixed" / "config.json")["quantization"]
    assert layers["lm_head"]["bits"] == layers["model.layers.0.self_attn.v_proj"]["bits"] == 6
    assert layers["model.layers.0.mlp.gate"]["bits"] == 8
    assert "Recipe `mixed`" in (tmp_path / "mixed" / "README.md").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "serched"}, "recipe 'serched' is unknown; did you mean searched?"),
        ({"recipe": "searched", "mode": "mxfp4"}, "searched is for affine quantization, not for mxfp4"),
        ({"recipe": "mixed", "bits": None}, "mixed is for affine quantization, not for unquantized weights"),
    ],
)
def test_recipes_that_do_not_exist(tmp_path: Path, settings, message):
    from mlx_qwen3 import convert
    from mlx_qwen3.errors import ConversionError

    with pytest.raises(ConversionError, match=message):
        convert(tmp_path, tmp_path / "out", **settings)
