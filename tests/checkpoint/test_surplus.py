"""Tensors that are not part of the model, and quantization that config.json does not mention."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny_checkpoints import DENSE, MOE, logits, save_shards, write_checkpoint

from mlx_qwen3 import load_model
from mlx_qwen3.conversion import convert
from mlx_qwen3.errors import CheckpointError

SURPLUS = {
    "model.layers.0.self_attn.rotary_emb.inv_freq": mx.ones(16),
    "model.rotary_emb.inv_freq": mx.ones(16),
    "v_head.summary.weight": mx.ones((1, 128)),
    "v_head.summary.bias": mx.ones(1),
}


@pytest.mark.parametrize("shards", [1, 2])
def test_known_surplus_is_named_and_left_out(tmp_path: Path, shards: int) -> None:
    tensors = write_checkpoint(tmp_path / "plain", DENSE)
    write_checkpoint(tmp_path / "more", DENSE)
    (tmp_path / "more" / "model.safetensors").unlink()
    save_shards(tmp_path / "more", tensors | SURPLUS, shards)
    with pytest.warns(UserWarning, match="inv_freq.* left out: not part of the model"):
        ours = logits(load_model(tmp_path / "more"))
    np.testing.assert_array_equal(ours, logits(load_model(tmp_path / "plain")))
    with pytest.warns(UserWarning, match="left out"):
        convert(tmp_path / "more", tmp_path / "out", verify=False)
    load_model(tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["model.layers.0.inv_freq", "score.weight", "model.v_head.weight", "mtp.fc.weight"]
)
def test_other_surplus_is_refused(tmp_path: Path, name: str) -> None:
    tensors = write_checkpoint(tmp_path, DENSE)
    save_shards(tmp_path, tensors | {name: mx.ones((4, 4))})
    with pytest.raises(CheckpointError, match=f"unexpected .*{name}"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 4, "group_size": 32},
        {"bits": 8, "group_size": 64},
        {"bits": 3, "group_size": 64},
        {"mode": "mxfp4"},
        {"mode": "mxfp8", "bits": 8},
        {"mode": "nvfp4"},
        {"recipe": "mixed"},
    ],
    ids=str,
)
def test_quantization_is_told_by_the_shapes(tmp_path: Path, options: dict) -> None:
    raw = MOE if options.get("bits") in (4, None) else DENSE
    write_checkpoint(tmp_path / "source", raw)
    convert(tmp_path / "source", tmp_path / "out", verify=False, **options)
    expected = logits(load_model(tmp_path / "out"))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    del config["quantization"], config["quantization_config"]
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(logits(load_model(tmp_path / "out")), expected)
    convert(tmp_path / "out", tmp_path / "plain", bits=None, dequantize=True, dtype="float32", verify=False)
    np.testing.assert_allclose(logits(load_model(tmp_path / "plain")), expected, atol=2e-2)
