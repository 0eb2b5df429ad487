"""AttentionSinks: keeps the keys of a window's first tokens at a bounded distance from the latest ones.

RoPE depends only on differences of positions. Between the tokens of the ring these stay below its size,
but the distance to the first tokens (the attention sinks of StreamingLLM, Xiao et al., 2023) grows without
end, beyond anything the model was trained on. So the sinks' keys are rotated `stride` positions further
whenever the ring has moved that far. No token is then further from them than the window and a stride.
Where a token sees them depends on its position alone, not on how the text was cut into chunks.
(docs/memory.md compares the alternatives.)
"""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx

from mlx_qwen3.cache.buffers import Buffer
from mlx_qwen3.cache.rows import Rows, copied, join, length_of, take


class Rotation(Protocol):
    """The part of a model's rotary embedding that a cache needs."""

    def shift(self, x: mx.array, by: int) -> mx.array:
        """Rotated rows (B, H, L, D) as they would be `by` positions later, or earlier if negative."""
        ...


class AttentionSinks:
    """The first `keep` keys of a window of `max_size` tokens, which are the first rows of `buffer`.

    stride: shifts are multiples of it. rotation: without one the keys are never shifted.
    """

    def __init__(
        self, buffer: Buffer, keep: int, max_size: int, stride: int, rotation: Rotation | None
    ) -> None:
        self.keep, self.max_size, self.stride, self.rotation = keep, max_size, stride, rotation
        self._buffer = buffer
        self._original: Rows | None = None  # the unshifted keys, while the buffer's are shifted
        self._shift = 0  # of the buffer's keys

    def shift_for(self, position: int) -> None:
        """Shift the buffer's keys to where the token at `position` sees them."""
        self._set_shift(self._shift_at(position))

    def unshift(self) -> None:
        """Put the unshifted keys back into the buffer."""
        self._set_shift(0)

    def unshifted(self, keys: Rows) -> Rows:
        """All of the buffer's `keys`, with the sinks' unshifted."""
        if self._original is None:
            return keys
        return join([self._original, take(keys, self.keep, length_of(keys))])

    def shifts(self, start: int, length: int) -> list[int]:
        """The different shifts at which `length` tokens from position `start` on see the sinks."""
        if self.keep == 0:
            return []
        return list(range(self._shift_at(start), self._shift_at(start + length - 1) + 1, self.stride))

    def mask(self, start: int, length: int) -> mx.array:
        """(L, shifts * keep): which sinks each of `length` tokens from `start` on sees, at which of `shifts`.

        A token sees the sinks at its own shift only, and no sink that comes after it.
        """
        queries = mx.arange(start, start + length)[:, None]
        shifts = mx.array(self.shifts(start, length))
        own_shift = mx.array([self._shift_at(position) for position in range(start, start + length)])
        at_own_shift = mx.repeat(own_shift[:, None] == shifts, self.keep, axis=1)
        return at_own_shift & (mx.tile(mx.arange(self.keep), len(shifts)) <= queries)

    def shifted(self, keys: Rows, by: int) -> Rows:
        """Any encoded keys as they would be `by` positions later, or earlier if negative."""
        if by == 0 or self.rotation is None:
            return keys
        return self._buffer.encode(self.rotation.shift(self._buffer.decode(keys), by))

    def _shift_at(self, position: int) -> int:
        """By how much the sinks are shifted for the token at `position`."""
        if self.rotation is None or self.keep == 0:
            return 0
        return max(0, position + 1 - self.max_size) // self.stride * self.stride

    def _set_shift(self, shift: int) -> None:
        if shift == self._shift:
            return
        if self._original is None:
            self._original = copied(self._buffer.read(0, self.keep))
        self._buffer.write(self.shifted(self._original, shift), 0)
        self._shift = shift
        if shift == 0:
            self._original = None
