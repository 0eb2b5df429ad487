"""Folders written by transformers load as they are, and dense ones we convert load there again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_checkpoints import DENSE, IDS, MOE, logits

from mlx_qwen3 import convert, load_model
from mlx_qwen3.checkpoint import load_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 2.0, "original_max_position_embeddings": 32_768}
# transformers reads its own spelling; the plain fields of ours are added by its config classes.
OLD_FIELDS = ("architectures", "model_type", "rope_theta", "rope_scaling")


def theirs(raw: dict[str, Any], **more: Any) -> Any:
    """A random transformers model of config `raw`."""
    name = "Qwen3Moe" if raw["model_type"] == "qwen3_moe" else "Qwen3"
    fields = {key: value for key, value in raw.items() if key not in OLD_FIELDS}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**(fields | rope | more))
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


@torch.no_grad()
def their_logits(model: Any) -> np.ndarray:
    return model(torch.tensor(IDS)).logits[0].float().numpy()


def save(model: Any, folder: Path, **options: Any) -> np.ndarray:
    """Write `model` as transformers does; return its logits."""
    model.save_pretrained(folder, **options)
    return their_logits(model)


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
    expected = save(theirs(raw, **more), tmp_path, max_shard_size=shard_size)
    assert (shard_size == "5GB") == (tmp_path / "model.safetensors").exists()
    np.testing.assert_allclose(logits(load_model(tmp_path)), expected, atol=1e-4)


def test_what_transformers_saved_in_bf16(tmp_path):
    expected = save(theirs(DENSE).to(torch.bfloat16), tmp_path)
    np.testing.assert_allclose(logits(load_model(tmp_path)), expected, atol=0.05)


# mlx-lm reads no scaling for mixtures, so theirs is converted without.
@pytest.mark.parametrize(
    ("raw", "more"), [(DENSE, {"rope_parameters": YARN}), (MOE, {})], ids=["dense", "moe"]
)
def test_converted_from_transformers_and_run_by_both(tmp_path, raw, more):
    from mlx_lm.utils import load_model as mlx_lm_load

    expected = save(theirs(raw, **more), tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out", bits=None)
    np.testing.assert_allclose(logits(load_model(tmp_path / "out")), expected, atol=1e-4)
    np.testing.assert_allclose(logits(mlx_lm_load(tmp_path / "out")[0]), expected, atol=1e-4)
    assert load_config(tmp_path / "out") == load_config(tmp_path / "source")


def test_transformers_loads_a_dense_model_we_converted(tmp_path):
    expected = save(theirs(DENSE), tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out", bits=None)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="float32").eval()
    np.testing.assert_allclose(their_logits(again), expected, atol=1e-5)
