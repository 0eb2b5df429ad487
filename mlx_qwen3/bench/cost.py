"""What one token costs at least, from a checkpoint's config and files: bytes read, multiplications done."""

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
    """weight_bytes: of the weights a token goes through, as stored: of experts those chosen, of the
    embedding nothing unless it is the output head too. kv_bytes: of a token of context, in 16 bits.
    weight_flops: of a token of a prompt, without the output head. attention_flops: for each token
    of context it looks at.
    """

    weight_bytes: float
    kv_bytes: float
    weight_flops: float
    attention_flops: float

    def decode_bytes(self, context: float, batch: int = 1) -> float:
        """Bytes that a step of decoding must read, for `batch` texts of `context` tokens."""
        return self.weight_bytes + batch * context * self.kv_bytes

    def prefill_flops(self, tokens: int) -> float:
        """FLOP of each token of a prompt of `tokens`, on average."""
        return self.weight_flops + self.attention_flops * tokens / 2


def cost_of(folder: Path) -> Cost:
    """The cost of the checkpoint in `folder`. Raises ConfigError, CheckpointError."""
    config = load_config(folder)
    stored = stored_tensors(folder).values()
    plain = expected_tensors(replace(config, quantization=None), mx.bfloat16)
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    sizes = {name: math.prod(shape) for name, (shape, _) in plain.items() if len(shape) > 1}
    return Cost(
        weight_bytes=sum(tensor.num_bytes * share(tensor.name, config) for tensor in stored),
        kv_bytes=2 * 2 * layers * config.num_key_value_heads * config.head_dim,
        weight_flops=2
        * sum(size * share(name, config) for name, size in sizes.items() if ".layers." in name),
        attention_flops=2 * 2 * layers * heads * config.head_dim,
    )


def share(name: str, config: ModelConfig) -> float:
    """How much of the tensor `name` a token being decoded goes through."""
    if ".experts." in name or ".switch_mlp." in name:
        return config.num_experts_per_tok / config.num_experts
    return float(config.tie_word_embeddings or "embed_tokens" not in name)
