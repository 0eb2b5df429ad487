"""SequenceCaches: one layer's KV caches of several sequences that are decoded together.

Each sequence keeps the cache it has alone: full or window, plain or quantized. A sequence that joins or
leaves a batch copies nothing, nothing is padded, and it reads exactly the rows it would read alone.
All else of a layer (projections, norms, feed-forward) is computed for all tokens at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import mlx.core as mx

from mlx_qwen3.cache.base import Cache


class SequenceCaches:
    """What attention is given in place of a cache where the new tokens belong to several sequences.

    The tokens are rows of a batch, (T, 1, ...): those of the first sequence, then those of the second,
    and so on.
    """

    def __init__(self, caches: Sequence[Cache], lengths: Sequence[int], shared: SequenceCaches | None = None):
        """caches: a layer's, one for each sequence. lengths: new tokens of each. shared: another layer's
        whose positions are the same, so that they are made once."""
        self.caches, self.lengths = caches, lengths
        bounds = [0]
        for length in lengths:
            bounds.append(bounds[-1] + length)
        self.parts = [slice(start, stop) for start, stop in pairwise(bounds)]
        self._shared = shared
        self._offset: mx.array | None = None

    @property
    def offset(self) -> mx.array:
        """The position of each new token, (T,)."""
        if self._shared is not None:
            return self._shared.offset
        if self._offset is None:
            starts = zip(self.caches, self.lengths, strict=True)
            # Offsets of single sequences are Python numbers.
            self._offset = mx.array([int(cache.offset) + i for cache, n in starts for i in range(n)])
        return self._offset

    def make_mask(self, length: int, return_array: bool, window_size: int | None) -> list[Any]:
        """The mask of each sequence's new tokens, as its own cache makes it."""
        del length  # of each sequence on its own
        masks = zip(self.caches, self.lengths, strict=True)
        return [cache.make_mask(count, return_array, window_size) for cache, count in masks]

    def split(self, *arrays: mx.array) -> Iterator[tuple[Cache, tuple[mx.array, ...]]]:
        """Each sequence's cache, and its own rows of arrays (T, H, 1, D) as (1, H, L, D)."""
        for cache, part, length in zip(self.caches, self.parts, self.lengths, strict=True):
            own = [array[part] for array in arrays]
            if length > 1:  # one token needs no other shape
                own = [array.transpose(2, 1, 0, 3) for array in own]
            yield cache, tuple(own)


def batched_layers(sequences: Sequence[Sequence[Cache]], lengths: Sequence[int]) -> list[Any]:
    """The layers' caches for a pass over new tokens of several sequences.

    sequences: each sequence's caches, one a layer. lengths: new tokens of each.
    """
    layers: list[SequenceCaches] = []
    for caches in zip(*sequences, strict=True):
        previous = layers[-1] if layers else None
        agree = previous is not None and all(
            cache.offset == before.offset for cache, before in zip(caches, previous.caches, strict=True)
        )
        shared = (previous._shared or previous) if previous is not None and agree else None
        layers.append(SequenceCaches(caches, lengths, shared))
    return layers
