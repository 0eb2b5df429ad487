"""Folders written by transformers load as they are, and dense ones we convert load there again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity.separate_process import in_transformers, needs_transformers
from tiny_checkpoints import DENSE, IDS, MOE, logits

from mlx_qwen3 import convert, load_model
from mlx_qwen3.checkpoint import load_config

pytestmark = [pytest.mark.parity, needs_transformers]

YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 2.0, "original_max_position_embeddings": 32_768}


def save(folder: Path, raw: dict[str, Any], more: dict[str, Any] | None = None, **options: Any) -> np.ndarray:
    """Have transformers write a random model of config `raw`; return its logits (L, V)."""
    return in_transformers("save", raw, more or {}, folder, np.array(IDS), **options)[0]


@pytest.mark.parametrize(
    ("raw", "more"),
    [
        (DENSE, {}),
        (DENSE | {"tie_word_embeddings": False}, {}),
        (DENSE, {"rope_parameters": YARN}),
        (MOE, {}),
        (MOE | {"tie_word_embeddings": True}, {}),
        (MOE, {"rope_parameters": YARN}),
    ],
    ids=["dense-tied", "dense-untied", "dense-yarn", "moe-untied", "moe-tied", "moe-yarn"],
)
@pytest.mark.parametrize("shard_size", ["5GB", "200KB"])
def test_what_transformers_saved(tmp_path, raw, more, shard_size):
    expected = save(tmp_path, raw, more, max_shard_size=shard_size)
    assert (shard_size == "5GB") == (tmp_path / "model.safetensors").exists()
    np.testing.assert_allclose(logits(load_model(tmp_path)), expected, atol=1e-4)


def test_what_transformers_saved_in_bf16(tmp_path):
    expected = save(tmp_path, DENSE, dtype="bfloat16")
    np.testing.assert_allclose(logits(load_model(tmp_path)), expected, atol=0.05)


# mlx-lm reads no scaling for mixtures, so theirs is converted without.
@pytest.mark.parametrize(
    ("raw", "more"), [(DENSE, {"rope_parameters": YARN}), (MOE, {})], ids=["dense", "moe"]
)
def test_converted_from_transformers_and_run_by_both(tmp_path, raw, more):
    from mlx_lm.utils import load_model as mlx_lm_load

    expected = save(tmp_path / "source", raw, more)
    convert(tmp_path / "source", tmp_path / "out", bits=None)
    np.testing.assert_allclose(logits(load_model(tmp_path / "out")), expected, atol=1e-4)
    np.testing.assert_allclose(logits(mlx_lm_load(tmp_path / "out")[0]), expected, atol=1e-4)
    assert load_config(tmp_path / "out") == load_config(tmp_path / "source")


def test_transformers_loads_a_dense_model_we_converted(tmp_path):
    expected = save(tmp_path / "source", DENSE)
    convert(tmp_path / "source", tmp_path / "out", bits=None)
    np.testing.assert_allclose(
        in_transformers("loaded", tmp_path / "out", np.array(IDS))[0], expected, atol=1e-5
    )
