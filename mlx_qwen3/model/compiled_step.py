"""A decoding step, compiled from the attention of one layer to the attention of the next.

The KV cache grows with every token, so MLX cannot compile anything that reads it once and reuse it.
Between two attentions (output projection, feed-forward, norms, the projections and rotation of the next
layer) the shapes are the same for every token: one compiled function per layer. It fuses element-wise
operations. Above all it saves Python: half of a step's time goes into building its graph, and that bounds
small models on fast devices.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise

import mlx.core as mx

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.model.attention import CacheMask, attend_cached
from mlx_qwen3.model.qwen3 import Model, TransformerBlock

# Hidden states (B, L, hidden), and the queries, keys and values of the next attention.
AttentionInputs = tuple[mx.array, mx.array, mx.array, mx.array]


class Contents:
    """The modules and arrays that a model had when this was made."""

    def __init__(self, model: Model):
        self._modules = [module for module in model.modules() if module is not model]
        self._blocks = list(model.layers)
        self._contents = list(self._of_modules(model))

    def are_of(self, model: Model) -> bool:
        """Whether `model` still has them, and no others."""
        return (
            len(model) + sum(map(len, self._modules)) == len(self._contents)
            and all(map(operator.is_, self._of_modules(model), self._contents))
            and all(map(operator.is_, model.layers, self._blocks))
        )

    def _of_modules(self, model: Model) -> Iterator[object]:
        """Every array and submodule. Iterates in C, because a step asks for them with every token."""
        return chain.from_iterable(map(dict.values, chain([model], self._modules)))


class CompiledStep:
    """`model(inputs, cache)` for a few tokens, with the weights that the model had when it was compiled."""

    # MLX traces each input shape anew. That pays for decoding, a batch included, and for verifying a draft.
    max_tokens = 32
    computes_now = False

    def __init__(self, model: Model):
        # No reference to the model itself: it holds this step, and the cycle would keep it in memory
        # until the garbage collector runs.
        blocks, norm, head = list(model.layers), model.model.norm, model.output_head
        embed = model.model.embed_tokens
        self._scale = blocks[0].self_attn.scale
        self._first = mx.compile(lambda ids, offset: _before_attention(blocks[0], embed(ids), offset))
        self._between = [mx.compile(_between(block, following)) for block, following in pairwise(blocks)]
        self._last = mx.compile(lambda x, attended: head(norm(_after_attention(blocks[-1], x, attended))))
        self._contents = Contents(model)

    def is_of(self, model: Model) -> bool:
        """Whether `model` still has the modules and arrays that were compiled, and no others."""
        return self._contents.are_of(model)

    def hidden_states(self, inputs: mx.array, mask: CacheMask, cache: Sequence[Cache]) -> None:
        """None: prompts are not compiled."""

    def __call__(self, inputs: mx.array, mask: CacheMask, cache: Sequence[Cache]) -> mx.array:
        """inputs (B, L) -> logits (B, L, V)."""
        offsets = _Offsets()
        attention_inputs = self._first(inputs, offsets.of(cache[0]))
        for index, between in enumerate(self._between):
            attended = self._attend(attention_inputs, mask, cache[index])
            attention_inputs = between(attention_inputs[0], attended, offsets.of(cache[index + 1]))
        return self._last(attention_inputs[0], self._attend(attention_inputs, mask, cache[-1]))

    def _attend(self, attention_inputs: AttentionInputs, mask: CacheMask, cache: Cache) -> mx.array:
        _, queries, keys, values = attention_inputs
        return attend_cached(queries, keys, values, cache, self._scale, mask)  # (B, H, L, D)


class _Offsets:
    """A cache's offset as an array, as compiled functions need it. Layers at the same offset share one."""

    def __init__(self) -> None:
        self._latest: tuple[int, mx.array] | None = None

    def of(self, cache: Cache) -> mx.array:
        offset: int | mx.array = cache.offset
        if isinstance(offset, mx.array):  # (B,): one for each sequence of a batch
            return offset
        if self._latest is None or self._latest[0] != offset:
            self._latest = offset, mx.array(offset)
        return self._latest[1]


def _before_attention(block: TransformerBlock, x: mx.array, offset: mx.array) -> AttentionInputs:
    return x, *block.self_attn.project_heads(block.input_layernorm(x), offset)


def _after_attention(block: TransformerBlock, x: mx.array, attended: mx.array) -> mx.array:
    x = x + block.self_attn.merge_heads(attended)
    return x + block.mlp(block.post_attention_layernorm(x))


def _between(
    block: TransformerBlock, following: TransformerBlock
) -> Callable[[mx.array, mx.array, mx.array], AttentionInputs]:
    return lambda x, attended, offset: _before_attention(
        following, _after_attention(block, x, attended), offset
    )
