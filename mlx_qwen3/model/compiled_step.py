"""A decoding step compiled from one layer's attention to the next's.

With every token the cache grows, so nothing that sees its rows can be compiled once and kept. What
lies between (output projection, feed-forward, norms, the next layer's projections and rotation) has
the same shapes for every token: one compiled function a layer. It fuses the element-wise parts, and
above all spares Python: building a step's graph takes half the time, which is what bounds small
models on fast devices.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import mlx.core as mx

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.model.attention_kernels import Mask, attend

if TYPE_CHECKING:
    from mlx_qwen3.model.qwen3 import Model, TransformerBlock

Carried = tuple[mx.array, mx.array, mx.array, mx.array]  # hidden states; queries, keys, values


class Step:
    """`model(inputs, cache)` for a few tokens; the weights are those the model had when it was made."""

    # Each shape of the input is traced anew: worth it for decoding and for checking a draft.
    MAX_TOKENS = 16

    def __init__(self, model: Model):
        # The model itself is not held: it holds this step, and must be gone once nobody else holds it.
        blocks, norm, head = list(model.layers), model.model.norm, model.output_head
        embed = model.model.embed_tokens
        self._scale = blocks[0].self_attn.scale
        self._first = mx.compile(lambda ids, offset: _before(blocks[0], embed(ids), offset))
        self._between = [mx.compile(_between(block, following)) for block, following in pairwise(blocks)]
        self._last = mx.compile(lambda x, found: head(norm(_after(blocks[-1], x, found))))
        self._modules, self._blocks = [module for module in model.modules() if module is not model], blocks
        self._held = list(self._holdings(model))

    def is_of(self, model: Model) -> bool:
        """Whether `model` still has the modules and arrays that were compiled, and no more."""
        return (
            len(model) + sum(map(len, self._modules)) == len(self._held)
            and all(map(operator.is_, self._holdings(model), self._held))
            and all(map(operator.is_, model.layers, self._blocks))
        )

    def _holdings(self, model: Model) -> Iterator[object]:
        """All that the modules hold. Asked for every token: without a step of Python's own for each."""
        return chain.from_iterable(map(dict.values, chain([model], self._modules)))

    def __call__(self, inputs: mx.array, mask: Mask, cache: Sequence[Cache]) -> mx.array:
        """inputs (B, L) -> logits (B, L, V)."""
        offsets = Offsets()
        carried = self._first(inputs, offsets.of(cache[0]))
        for index, between in enumerate(self._between):
            found = self._attend(carried, mask, cache[index])
            carried = between(carried[0], found, offsets.of(cache[index + 1]))
        return self._last(carried[0], self._attend(carried, mask, cache[-1]))

    def _attend(self, carried: Carried, mask: Mask, cache: Cache) -> mx.array:
        _, queries, keys, values = carried
        return attend(queries, *cache.update_and_fetch(keys, values), self._scale, mask)


class Offsets:
    """A layer's offset as an array, which compiled functions take; made once for layers that agree."""

    def __init__(self) -> None:
        self._latest: tuple[int, mx.array] | None = None

    def of(self, cache: Cache) -> mx.array:
        offset: int | mx.array = cache.offset
        if isinstance(offset, mx.array):  # of each row
            return offset
        if self._latest is None or self._latest[0] != offset:
            self._latest = offset, mx.array(offset)
        return self._latest[1]


def _before(block: TransformerBlock, x: mx.array, offset: mx.array) -> Carried:
    return x, *block.self_attn.rotated(block.input_layernorm(x), offset)


def _after(block: TransformerBlock, x: mx.array, found: mx.array) -> mx.array:
    x = x + block.self_attn.merge(found)
    return x + block.mlp(block.post_attention_layernorm(x))


def _between(
    block: TransformerBlock, following: TransformerBlock
) -> Callable[[mx.array, mx.array, mx.array], Carried]:
    return lambda x, found, offset: _before(following, _after(block, x, found), offset)
