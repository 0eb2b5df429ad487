"""Rotations: cosines and sines of positions, as a model's embedding computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import mlx.core as mx
import numpy as np

# Positions that are computed at a time.
BLOCK = 64
# How many numbers are kept: 8 MiB.
KEPT_NUMBERS = 2**21


class Rotations:
    """Keeps what was computed: a token's would cost as much as a small model's layer."""

    def __init__(self, head_dim: int):
        self._head_dim = head_dim
        self._rope: Callable[..., mx.array] | None = None
        self._blocks: dict[int, Any] = {}

    def fill(self, out: Any, rope: Callable[..., mx.array], spans: Iterable[tuple[int, int]]) -> None:
        """Write each row's cosines, then its sines.

        Args:
            out: Where to, (T, D).
            rope: The embedding, a module of `model/rope.py`.
            spans: First position and number of rows that follow each other; T rows in all.
        """
        if rope is not self._rope or len(self._blocks) * BLOCK * self._head_dim > KEPT_NUMBERS:
            self._rope = rope
            self._blocks.clear()
        row = 0
        for position, rows in spans:
            end = row + rows
            while row < end:
                number, start = divmod(position, BLOCK)
                count = min(BLOCK - start, end - row)
                out[row : row + count] = self._block(number)[start : start + count]
                row, position = row + count, position + count

    def _block(self, number: int) -> Any:
        block = self._blocks.get(number)
        if block is None:
            assert self._rope is not None
            # The pair (1, 0) becomes its cosine and its sine.
            pairs = mx.concatenate([mx.ones(self._head_dim // 2), mx.zeros(self._head_dim // 2)])
            rotated = self._rope(mx.broadcast_to(pairs, (1, 1, BLOCK, self._head_dim)), offset=number * BLOCK)
            block = self._blocks[number] = np.array(rotated)[0, 0]
        return block
