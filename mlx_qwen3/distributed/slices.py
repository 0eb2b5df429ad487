"""Which rows or columns of each tensor a rank needs."""

from __future__ import annotations

import re
from typing import NamedTuple

from mlx_qwen3.distributed.plan import TENSOR, Share, Span
from mlx_qwen3.model.config import ModelConfig

LAYER = re.compile(r"(model\.layers\.)(\d+)(\..*)")
ROWS, COLUMNS = -2, -1
"""The axes of a matrix (..., out, in)."""


class Slice(NamedTuple):
    """The values of `span` along an axis that has `width` of them in the whole tensor."""

    axis: int
    span: Span
    width: int

    def of(self, length: int) -> Span:
        """The span along an axis stored with `length` entries: packed values, or scales of groups."""
        start, stop = self.span.start * length, self.span.stop * length
        if start % self.width or stop % self.width:
            raise ValueError(f"{self.span} of {self.width} does not divide {length} entries")
        return Span(start // self.width, stop // self.width)


def slice_of(name: str, share: Share, config: ModelConfig) -> Slice | None:
    """The part of tensor `name` (as published) that `share` needs; None for all of it.

    config: of the whole model.
    """
    if share.mode != TENSOR:
        return None
    path = name.rpartition(".")[0]
    projection = path.rpartition(".")[2]
    head = config.head_dim
    match projection:
        case "q_proj":
            return Slice(ROWS, _times(share.heads, head), config.num_attention_heads * head)
        case "k_proj" | "v_proj":
            return Slice(ROWS, _times(share.kv_heads, head), config.num_key_value_heads * head)
        case "o_proj":
            return Slice(COLUMNS, _times(share.heads, head), config.num_attention_heads * head)
        case "gate_proj" | "up_proj" | "down_proj":
            is_expert = ".experts." in path or ".switch_mlp." in path
            span = share.expert_columns if is_expert else share.columns
            width = config.moe_intermediate_size if is_expert else config.intermediate_size
            return Slice(COLUMNS if projection == "down_proj" else ROWS, span, width)
        case "embed_tokens" | "lm_head":
            return Slice(ROWS, share.vocabulary, config.vocab_size)
    return None


def stored_name(name: str, share: Share) -> str:
    """The published name of the tensor that the rank's model calls `name`: its layers count from 0."""
    match = LAYER.fullmatch(name)
    return f"{match[1]}{int(match[2]) + share.layers.start}{match[3]}" if match else name


def is_needed(name: str, share: Share) -> bool:
    """Whether a rank needs any of the tensor `name`, as published."""
    match = LAYER.fullmatch(name)
    if match:
        return share.layers.start <= int(match[2]) < share.layers.stop
    return share.has_embedding or share.mode == TENSOR


def _times(span: Span, factor: int) -> Span:
    return Span(span.start * factor, span.stop * factor)
