"""MLX-quantized checkpoints turned back into plain numbers."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, MOE, logits, read_tensors, write_checkpoint

from mlx_qwen3 import load_model
from mlx_qwen3.conversion import convert
from mlx_qwen3.conversion.options import ConversionOptions
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import read_json


@pytest.fixture
def source(tmp_path) -> Path:
    write_checkpoint(tmp_path / "source", DENSE)
    return tmp_path / "source"


CASES = {
    "affine": (DENSE, {"bits": 4}),
    "affine-3": (DENSE | {"tie_word_embeddings": False}, {"bits": 3, "group_size": 32}),
    "moe": (MOE, {"bits": 2}),
    "mxfp4": (MOE, {"mode": "mxfp4"}),
    "mxfp8": (DENSE, {"mode": "mxfp8", "bits": 8}),
    "nvfp4": (DENSE, {"mode": "nvfp4"}),
}


@pytest.mark.parametrize("case", CASES)
def test_gives_what_mlx_lm_gives_and_the_same_logits(tmp_path, case):
    from mlx_lm.convert import convert as theirs

    raw, settings = CASES[case]
    write_byte_tokenizer(tmp_path / "source")
    write_checkpoint(tmp_path / "source", raw | {"torch_dtype": "bfloat16"})
    convert(tmp_path / "source", tmp_path / "small", **settings)
    convert(tmp_path / "small", tmp_path / "ours", dequantize=True)
    theirs(str(tmp_path / "small"), str(tmp_path / "theirs"), dequantize=True)
    expected, ours = read_tensors(tmp_path / "theirs"), read_tensors(tmp_path / "ours")
    assert ours.keys() == expected.keys()
    for name, array in expected.items():
        assert ours[name].dtype == array.dtype == mx.bfloat16, name
        assert mx.array_equal(ours[name], array), name
    assert "quantization" not in read_json(tmp_path / "ours" / "config.json")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_to_the_dtype_asked_for(source, tmp_path, dtype):
    convert(source, tmp_path / "small", bits=8)
    convert(tmp_path / "small", tmp_path / "out", dequantize=True, dtype=dtype)
    formats = {str(array.dtype) for array in read_tensors(tmp_path / "out").values()}
    assert formats == {f"mlx.core.{dtype}"}
    difference = logits(load_model(tmp_path / "out")) - logits(load_model(tmp_path / "small"))
    assert np.abs(difference).max() < (1e-3 if dtype == "float32" else 0.5)


def test_only_what_is_quantized(source, tmp_path):
    with pytest.raises(ConversionError, match="is not quantized; there is nothing to dequantize"):
        convert(source, tmp_path / "out", dequantize=True)


def test_is_not_quantizing(source, tmp_path):
    with pytest.raises(ConversionError, match="dequantizing gives no 8 bits; try dequantize=True"):
        convert(source, tmp_path / "out", bits=8, dequantize=True)


@pytest.mark.parametrize(("mode", "bits"), [("affine", 4), ("mxfp4", 4), ("mxfp8", 8), ("nvfp4", 4)])
def test_bits_are_those_of_the_mode_unless_given(mode, bits):
    quantization = ConversionOptions(mode=mode).quantization
    assert quantization is not None
    assert quantization.bits == bits
    assert ConversionOptions(dequantize=True).quantization is None
