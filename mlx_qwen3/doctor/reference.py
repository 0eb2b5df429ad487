"""Qwen3 in numpy: what a device's logits are compared with. No cache, no fused product, nothing of MLX.

Slow and plain on purpose: a mistake of the model's code, or of a device's kernels, is not in here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Weights = Mapping[str, Array]


def reference_logits(config: Mapping[str, Any], weights: Weights, ids: list[int], mask: Array) -> Array:
    """Logits (L, V) of `ids`.

    Args:
        config: As in config.json.
        weights: Matrices (out, in) and vectors by their published names, experts stacked.
        ids: L token ids.
        mask: (L, L), true where a query (row) sees a key (column).
    """
    x = weights["model.embed_tokens.weight"][ids]  # (L, hidden)
    for layer in range(config["num_hidden_layers"]):
        own = {
            name.removeprefix(f"model.layers.{layer}."): value
            for name, value in weights.items()
            if name.startswith(f"model.layers.{layer}.")
        }
        x = x + _attention(config, own, _norm(x, own["input_layernorm.weight"]), mask)
        x = x + _feed_forward(config, own, _norm(x, own["post_attention_layernorm.weight"]))
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    result: Array = _norm(x, weights["model.norm.weight"]) @ head.T
    return result


def causal(length: int, window: int | None = None, keep: int = 0) -> Array:
    """The mask (L, L) of a full cache, or of a window that keeps the first `keep` tokens and the latest."""
    queries, keys = np.arange(length)[:, None], np.arange(length)[None]
    seen = keys <= queries
    if window is not None:
        seen &= (keys < keep) | (keys > queries - (window - keep))
    return np.asarray(seen)


def _norm(x: Array, weight: Array) -> Array:
    return np.asarray(x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * weight)


def _attention(config: Mapping[str, Any], own: Weights, x: Array, mask: Array) -> Array:
    heads, key_heads, size = (
        config[name] for name in ("num_attention_heads", "num_key_value_heads", "head_dim")
    )
    length = x.shape[0]

    def project(name: str, count: int) -> Array:
        return np.asarray((x @ own[f"self_attn.{name}_proj.weight"].T).reshape(length, count, size))

    queries = _rotate(_norm(project("q", heads), own["self_attn.q_norm.weight"]), config["rope_theta"])
    keys = _rotate(_norm(project("k", key_heads), own["self_attn.k_norm.weight"]), config["rope_theta"])
    values = project("v", key_heads)
    outputs = np.empty_like(queries)
    for head in range(heads):
        shared = head // (heads // key_heads)
        scores = queries[:, head] @ keys[:, shared].T * np.float32(size**-0.5)
        scores = np.where(mask, scores, np.float32(-np.inf))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        outputs[:, head] = weights / weights.sum(axis=-1, keepdims=True) @ values[:, shared]
    return np.asarray(outputs.reshape(length, -1) @ own["self_attn.o_proj.weight"].T)


def _rotate(x: Array, theta: float) -> Array:
    """RoPE of x (L, H, D) at positions 0 to L - 1; pairs are (i, i + D/2)."""
    length, _, size = x.shape
    angles = np.arange(length)[:, None] * theta ** (-np.arange(0, size, 2) / size)  # (L, D/2)
    cos, sin = (part[:, None].astype(np.float32) for part in (np.cos(angles), np.sin(angles)))
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _feed_forward(config: Mapping[str, Any], own: Weights, x: Array) -> Array:
    if "mlp.gate.weight" not in own:
        return _swiglu(x, *(own[f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down")))
    logits = x @ own["mlp.gate.weight"].T
    output = np.zeros_like(x)
    for row in range(x.shape[0]):
        chosen = np.argsort(-logits[row])[: config["num_experts_per_tok"]]
        shares = np.exp(logits[row, chosen] - logits[row, chosen].max())
        for expert, share in zip(chosen, shares / shares.sum(), strict=True):
            matrices = (own[f"mlp.switch_mlp.{name}_proj.weight"][expert] for name in ("gate", "up", "down"))
            output[row] += share * _swiglu(x[row], *matrices)
    return output


def _swiglu(x: Array, gate: Array, up: Array, down: Array) -> Array:
    gated = x @ gate.T
    return np.asarray((gated / (1 + np.exp(-gated)) * (x @ up.T)) @ down.T)
