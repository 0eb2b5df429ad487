"""Small random models with the heads of real ones, and what the reference says of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.backend.switches import is_plain
from mlx_qwen3.doctor.reference import causal, reference_logits
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.prepare import prepare
from mlx_qwen3.model.qwen3 import Model

HEADS = {"0.6b": (16, 8), "4b": (32, 8), "14b": (40, 8), "32b": (64, 8)}
"""Query and key heads of the family: Metal's kernels are chosen by their ratio."""
VOCABULARY = 512
BASE: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "head_dim": 128,
    "intermediate_size": 512,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}
EXPERTS: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}


@dataclass(frozen=True)
class Subject:
    """A model to examine, its ids, and the reference's logits for them."""

    name: str
    config: dict[str, Any]
    model: Model
    weights: dict[str, NDArray[Any]]

    def expected(self, ids: list[int], window: int | None = None, keep: int = 0) -> NDArray[Any]:
        """Logits (L, V) by the reference."""
        return reference_logits(self.config, self.weights, ids, causal(len(ids), window, keep))


def make_subject(heads: str = "0.6b", *, experts: bool = False, bits: int | None = None) -> Subject:
    """A model prepared for MLX's default device, with 16-bit or quantized weights that the reference knows.

    Nothing is shared between calls but the drawn weights, so a check may change its model.
    """
    config = dict(BASE)
    config["num_attention_heads"], config["num_key_value_heads"] = HEADS[heads]
    config |= EXPERTS if experts else {}
    model = Model(ModelConfig.from_dict(config))
    model.load_weights([(name, mx.array(value)) for name, value in _drawn(heads, experts)])
    model.set_dtype(mx.bfloat16)
    if is_cpu() and is_plain():  # nothing will make it compute in fp32
        model.set_dtype(mx.float32)
    if bits is not None:
        nn.quantize(model, group_size=64, bits=bits)
    weights = plain_weights(model, bits)
    mx.eval(model.parameters())
    model.eval()
    prepare(model)
    return Subject(f"{heads}{' experts' if experts else ''}", config, model, weights)


@cache
def _drawn(heads: str, experts: bool) -> list[tuple[str, NDArray[Any]]]:
    """Weights that give each layer a say: matrices that keep the size of what they multiply, strong norms."""
    config = dict(BASE)
    config["num_attention_heads"], config["num_key_value_heads"] = HEADS[heads]
    config |= EXPERTS if experts else {}
    random = np.random.default_rng(len(heads) + experts)
    drawn = []
    for name, value in tree_flatten(Model(ModelConfig.from_dict(config)).parameters()):
        shape = value.shape
        if len(shape) == 1:
            # Sharp attention: an error in one row of many is seen.
            values = random.uniform(0.5, 1.5, shape) * (1.7 if "q_norm" in name or "k_norm" in name else 1)
        else:
            values = random.normal(0, shape[-1] ** -0.5, shape)
        drawn.append((name, values.astype(np.float32)))
    return drawn


def plain_weights(model: Model, bits: int | None) -> dict[str, NDArray[Any]]:
    """All weights in fp32 by their names, quantized ones unpacked by numpy."""
    arrays = dict(tree_flatten(model.parameters()))
    plain: dict[str, NDArray[Any]] = {}
    for name, value in arrays.items():
        if name.endswith((".scales", ".biases")):
            continue
        stem = name.removesuffix(".weight")
        if value.dtype == mx.uint32 and bits is not None:
            plain[name] = unpacked(value, bits, arrays[f"{stem}.scales"], arrays[f"{stem}.biases"])
        else:
            plain[name] = np.array(value.astype(mx.float32))
    return plain


def unpacked(packed: mx.array, bits: int, scales: mx.array, biases: mx.array) -> NDArray[Any]:
    """Affine quantized values by numpy: integers of 2 to 8 bits, lowest bit first, times scale, plus bias."""
    scale, bias = (np.array(part.astype(mx.float32)) for part in (scales, biases))
    octets: NDArray[Any] = np.array(packed).view(np.uint8)
    values: NDArray[Any]
    if bits == 8:
        values = octets
    elif bits == 4:
        values = np.stack([octets & 15, octets >> 4], axis=-1)
    else:
        stream = np.unpackbits(octets, axis=-1, bitorder="little").astype(np.float32)
        values = stream.reshape(*packed.shape[:-1], -1, bits) @ (2 ** np.arange(bits, dtype=np.float32))
    groups = values.reshape(*scale.shape, -1).astype(np.float32) * scale[..., None] + bias[..., None]
    return np.asarray(groups.reshape(*packed.shape[:-1], -1), np.float32)
