"""Grouped-query attention with a norm on every query and key head."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.rows import Rows
from mlx_qwen3.model.attention_kernels import Mask, attend
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.fused_projections import Folding
from mlx_qwen3.model.rope import make_rope


class Attention(Folding):
    """Self-attention of one layer: `num_attention_heads` queries share `num_key_value_heads` keys."""

    together = ("q_proj", "k_proj", "v_proj")

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

    def __call__(self, x: mx.array, mask: Mask = None, cache: Cache | None = None) -> mx.array:
        """x (B, L, hidden) -> (B, L, hidden). Rows of earlier calls are read from `cache`."""
        offset = cache.offset if cache is not None else 0
        queries, keys, values = self.rotated(x, offset)
        rows: tuple[Rows, Rows] = (keys, values)
        if cache is not None:
            rows = cache.update_and_fetch(keys, values)  # (B, H_kv, S + L, D), or quantized
        return self.merge(attend(queries, *rows, self.scale, mask))

    def rotated(self, x: mx.array, offset: int | mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Queries (B, H, L, D), keys and values (B, H_kv, L, D) of x (B, L, hidden), from `offset` on."""
        q, k, v = self.project(x)
        queries = self._heads(q, self.num_attention_heads)  # (B, L, H, D)
        keys = self._heads(k, self.num_key_value_heads)
        values = self._heads(v, self.num_key_value_heads).swapaxes(1, 2)

        # Qwen3 normalises every head before it is rotated.
        queries = self.rope(self.q_norm(queries).swapaxes(1, 2), offset=offset)  # (B, H, L, D)
        keys = self.rope(self.k_norm(keys).swapaxes(1, 2), offset=offset)
        return queries, keys, values

    def merge(self, output: mx.array) -> mx.array:
        """What the heads found (B, H, L, D) -> (B, L, hidden)."""
        B, _, L, _ = output.shape
        return self.o_proj(output.swapaxes(1, 2).reshape(B, L, -1))

    def _heads(self, x: mx.array, count: int) -> mx.array:
        B, L, _ = x.shape
        return x.reshape(B, L, count, -1)
