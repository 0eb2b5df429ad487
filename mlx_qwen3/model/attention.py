"""Grouped-query attention with a norm on every query and key head."""

from __future__ import annotations

from typing import cast

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.batch import SequenceCaches
from mlx_qwen3.model.attention_kernels import Mask, attend
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.fused_projections import FusedProjections
from mlx_qwen3.model.rope import make_rope

CacheMask = Mask | list[Mask]
"""The mask of a layer's cache, or of SequenceCaches, which have one per sequence."""


class Attention(FusedProjections):
    """Self-attention of one layer: `num_attention_heads` queries share `num_key_value_heads` keys."""

    fused = ("q_proj", "k_proj", "v_proj")

    def __init__(self, config: ModelConfig):
        super().__init__()
        hidden, head_dim = config.hidden_size, config.head_dim
        self.num_attention_heads = config.num_attention_heads
        self.num_key_value_heads = config.num_key_value_heads
        self.scale = head_dim**-0.5

        self.q_proj = nn.Linear(hidden, config.num_attention_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, config.num_key_value_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, config.num_key_value_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * head_dim, hidden, bias=False)
        self.q_norm = nn.RMSNorm(head_dim, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(head_dim, eps=config.rms_norm_eps)
        self.rope = make_rope(config)

    def __call__(self, x: mx.array, mask: CacheMask = None, cache: Cache | None = None) -> mx.array:
        """x (B, L, hidden) -> (B, L, hidden). `cache` holds the S tokens before x and is extended by x."""
        offset = cache.offset if cache is not None else 0
        queries, keys, values = self.project_heads(x, offset)
        return self.merge_heads(attend_cached(queries, keys, values, cache, self.scale, mask))

    def project_heads(self, x: mx.array, offset: int | mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """x (B, L, hidden) -> queries (B, H, L, D), keys and values (B, H_kv, L, D).

        Queries and keys are rotated to positions from `offset` on.
        """
        B, L, _ = x.shape
        q, k, v = self.project(x)
        queries = q.reshape(B, L, self.num_attention_heads, -1)  # (B, L, H, D)
        keys = k.reshape(B, L, self.num_key_value_heads, -1)  # (B, L, H_kv, D)
        values = v.reshape(B, L, self.num_key_value_heads, -1).swapaxes(1, 2)  # (B, H_kv, L, D)

        # Qwen3 normalises every head before it rotates it.
        queries = self.rope(self.q_norm(queries).swapaxes(1, 2), offset=offset)  # (B, H, L, D)
        keys = self.rope(self.k_norm(keys).swapaxes(1, 2), offset=offset)  # (B, H_kv, L, D)
        return queries, keys, values

    def merge_heads(self, output: mx.array) -> mx.array:
        """The output of the heads (B, H, L, D) -> (B, L, hidden)."""
        B, _, L, _ = output.shape
        return self.o_proj(output.swapaxes(1, 2).reshape(B, L, -1))


def attend_cached(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Cache | None,
    scale: float,
    mask: CacheMask,
) -> mx.array:
    """Append keys and values (B, H_kv, L, D) to `cache`; attention of queries (B, H, L, D) to all its rows.

    Sequences that are decoded together (SequenceCaches) attend one after another, each to its own rows.
    """
    if isinstance(mask, list):
        sequences = cast(SequenceCaches, cache).split(queries, keys, values)
        outputs = []
        for (sequence_cache, (q, k, v)), sequence_mask in zip(sequences, mask, strict=True):
            rows = sequence_cache.update_and_fetch(k, v)  # (1, H_kv, S + L, D), or quantized
            output = attend(q, *rows, scale, sequence_mask)  # (1, H, L, D)
            outputs.append(output if output.shape[2] == 1 else output.transpose(2, 1, 0, 3))  # (L, H, 1, D)
        return mx.concatenate(outputs)  # (T, H, 1, D), where T is all new tokens
    if cache is None:
        return attend(queries, keys, values, scale, mask)
    rows = cache.update_and_fetch(keys, values)  # (B, H_kv, S + L, D), or quantized
    return attend(queries, *rows, scale, mask)  # (B, H, L, D)
