"""Checkpoints of a few thousand random weights, in the form in which Qwen publishes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import numpy as np
from mlx.utils import tree_flatten

from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

DENSE: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "vocab_size": 300,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}
MOE: dict[str, Any] = DENSE | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_hidden_layers": 3,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [1],
    "tie_word_embeddings": False,
}
CACHES: dict[str, dict[str, Any]] = {
    "full": {},
    "quantized": {"bits": 8, "group_size": 32},
    "rotating": {"max_size": 12, "keep": 2},
    "rotating quantized": {"max_size": 12, "keep": 2, "bits": 4, "group_size": 32},
}
"""Options of `make_prompt_cache` for each kind; windows are full soon."""
IDS = [[5, 17, 299, 0, 42, 42, 8]]


def random_model(raw: dict[str, Any], seed: int = 0) -> Model:
    """A model in fp32 with weights as MLX draws them."""
    mx.random.seed(seed)
    model = Model(ModelConfig.from_dict(raw))
    mx.eval(model.parameters())
    return model


def published_tensors(
    raw: dict[str, Any], dtype: mx.Dtype = mx.float32, seed: int = 0
) -> dict[str, mx.array]:
    """Random tensors for config `raw`, experts one by one; norms too, so that none can be mixed up."""
    random = np.random.default_rng(seed)
    model = Model(ModelConfig.from_dict({key: value for key, value in raw.items() if key != "quantization"}))
    tensors = {}
    for name, value in tree_flatten(model.parameters()):
        values = mx.array(random.normal(0, 0.3, value.shape).astype(np.float32)).astype(dtype)
        if ".switch_mlp." in name:
            experts = {name.replace(".switch_mlp.", f".experts.{i}."): row for i, row in enumerate(values)}
            tensors.update(experts)
        else:
            tensors[name] = values + 1 if "norm" in name else values
    return tensors


def write_checkpoint(
    folder: Path, raw: dict[str, Any], dtype: mx.Dtype = mx.float32, shards: int = 1
) -> dict[str, mx.array]:
    """Write config.json and weights of `raw`, with an index if there are several shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    tensors = published_tensors(raw, dtype)
    save_shards(folder, tensors, shards)
    return tensors


def save_shards(folder: Path, tensors: dict[str, mx.array], shards: int = 1) -> None:
    """Write `tensors` as published checkpoints are: one file, or several with an index."""
    if shards == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
        return
    files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    places = {name: files[i % shards] for i, name in enumerate(sorted(tensors))}
    for file in files:
        part = {name: tensors[name] for name in tensors if places[name] == file}
        mx.save_safetensors(str(folder / file), part, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def read_tensors(folder: Path) -> dict[str, mx.array]:
    """Every tensor of a checkpoint's files."""
    tensors: dict[str, mx.array] = {}
    for file in folder.glob("*.safetensors"):
        of_file: Any = mx.load(str(file))
        tensors |= of_file
    return tensors


def logits(model: Any) -> np.ndarray:
    """What `model` says of IDS: (L, V)."""
    return np.array(model(mx.array(IDS)).astype(mx.float32))[0]
