"""Small models of every architecture. Their weights come from a seed and are the same on every machine.

Weights have the names and shapes of published checkpoints, so loading them tests `sanitize` too.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

VOCAB = 96
ORIGINAL = 64  # positions that scaled models were "trained" on
GREEDY_TOKENS = 200
Raw = dict[str, Any]

DENSE: Raw = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": VOCAB,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}
EXPERTS: Raw = {
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 48,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}


def yarn(factor: float, **more: float) -> Raw:
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": factor}
    rope["original_max_position_embeddings"] = ORIGINAL
    return {"rope_parameters": {**rope, **more}, "max_position_embeddings": int(ORIGINAL * factor)}


MOE = {**DENSE, **EXPERTS}
# name: (config, tokens of the prompt)
CASES: dict[str, tuple[Raw, int]] = {
    "dense": (DENSE, 24),
    "dense-tied": ({**DENSE, "tie_word_embeddings": True}, 24),
    "dense-one-kv-head": ({**DENSE, "num_key_value_heads": 1, "rms_norm_eps": 1e-5}, 24),
    "dense-far": ({**DENSE, "num_hidden_layers": 2}, 5000),
    **{f"dense-yarn-{factor:g}": ({**DENSE, **yarn(factor)}, 90) for factor in (1.5, 2, 3, 4)},
    "dense-yarn-factor-given": ({**DENSE, **yarn(4, attention_factor=1.3)}, 90),
    "dense-yarn-ramp-given": ({**DENSE, **yarn(2, beta_fast=2.0, beta_slow=0.5)}, 90),
    "moe": (MOE, 24),
    "moe-tied": ({**MOE, "tie_word_embeddings": True}, 24),
    "moe-weights-not-normalised": ({**MOE, "norm_topk_prob": False}, 24),
    "moe-dense-layers": ({**MOE, "mlp_only_layers": [1]}, 24),
    "moe-every-second-layer": ({**MOE, "decoder_sparse_step": 2, "num_hidden_layers": 4}, 24),
    "moe-yarn-4": ({**MOE, **yarn(4)}, 90),
}


def prompt(length: int, batch: int) -> np.ndarray:
    """Random ids (batch, length); row 0 is the same for every batch size."""
    return np.stack([np.random.default_rng([7, row]).integers(0, VOCAB, length) for row in range(batch)])


def weights(raw: Raw) -> dict[str, np.ndarray]:
    """Every tensor of a published checkpoint of this config, in fp32."""
    return {name: _random(name, shape) for name, shape in shapes(raw).items()}


def _random(name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if len(shape) == 1:
        return np.float32(1) + np.float32(0.2) * values
    return values * np.float32(1.5 / np.sqrt(shape[-1]))


def shapes(raw: Raw) -> dict[str, tuple[int, ...]]:
    hidden, vocab = raw["hidden_size"], raw["vocab_size"]
    tensors = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not raw["tie_word_embeddings"]:
        tensors["lm_head.weight"] = (vocab, hidden)
    for layer in range(raw["num_hidden_layers"]):
        tensors |= {f"model.layers.{layer}.{name}": shape for name, shape in _layer(raw, layer).items()}
    return tensors


def _layer(raw: Raw, layer: int) -> dict[str, tuple[int, ...]]:
    hidden, head = raw["hidden_size"], raw["head_dim"]
    queries, keys = raw["num_attention_heads"] * head, raw["num_key_value_heads"] * head
    tensors = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "self_attn.q_norm.weight": (head,),
        "self_attn.k_norm.weight": (head,),
    }
    if not is_sparse(raw, layer):
        return tensors | _swiglu("mlp", hidden, raw["intermediate_size"])
    for expert in range(raw["num_experts"]):
        tensors |= _swiglu(f"mlp.experts.{expert}", hidden, raw["moe_intermediate_size"])
    return tensors | {"mlp.gate.weight": (raw["num_experts"], hidden)}


def is_sparse(raw: Raw, layer: int) -> bool:
    if "num_experts" not in raw or layer in raw["mlp_only_layers"]:
        return False
    return (layer + 1) % raw["decoder_sparse_step"] == 0


def _swiglu(prefix: str, hidden: int, intermediate: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.gate_proj.weight": (intermediate, hidden),
        f"{prefix}.up_proj.weight": (intermediate, hidden),
        f"{prefix}.down_proj.weight": (hidden, intermediate),
    }
