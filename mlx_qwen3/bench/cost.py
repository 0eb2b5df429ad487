"""The least work a token takes, in bytes read and FLOP, from a checkpoint's config and files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from mlx_qwen3.checkpoint import expected_tensors, load_config
from mlx_qwen3.checkpoint.safetensors_files import stored_tensors
from mlx_qwen3.model.config import ModelConfig


@dataclass(frozen=True)
class Cost:
    """The cost of one token.

    Attributes:
        weight_bytes: Bytes of the stored weights that decoding a token reads. Of the experts only the
            chosen ones count, and the embedding only if it is the output head too.
        kv_bytes: Bytes of the KV cache per token of context, in 16 bits.
        weight_flops: FLOP of the weights per prompt token, without the output head.
        attention_flops: FLOP of attention per pair of a token and a token of its context.
    """

    weight_bytes: float
    kv_bytes: float
    weight_flops: float
    attention_flops: float

    def decode_bytes(self, context: float, batch: int = 1) -> float:
        """Bytes that a decoding step reads for a batch of sequences of `context` tokens."""
        return self.weight_bytes + batch * context * self.kv_bytes

    def prefill_flops(self, tokens: int) -> float:
        """Mean FLOP per token of a prompt of `tokens`."""
        return self.weight_flops + self.attention_flops * tokens / 2


def cost_of(folder: Path) -> Cost:
    """The cost of the checkpoint in `folder`. Raises ConfigError, CheckpointError."""
    config = load_config(folder)
    stored = stored_tensors(folder).values()
    unquantized = expected_tensors(replace(config, quantization=None), mx.bfloat16)
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    sizes = {name: math.prod(shape) for name, (shape, _) in unquantized.items() if len(shape) > 1}
    return Cost(
        weight_bytes=sum(tensor.num_bytes * _share_read(tensor.name, config) for tensor in stored),
        kv_bytes=2 * 2 * layers * config.num_key_value_heads * config.head_dim,
        weight_flops=2
        * sum(size * _share_read(name, config) for name, size in sizes.items() if ".layers." in name),
        attention_flops=2 * 2 * layers * heads * config.head_dim,
    )


def _share_read(name: str, config: ModelConfig) -> float:
    """The share of the tensor `name` that decoding one token reads."""
    if ".experts." in name or ".switch_mlp." in name:
        return config.num_experts_per_tok / config.num_experts
    return float(config.tie_word_embeddings or "embed_tokens" not in name)
