"""Ending: why a text ends, told token by token."""

from __future__ import annotations

from collections.abc import Collection

from mlx_qwen3.events import FinishReason
from mlx_qwen3.loops import LoopDetector


class Ending:
    """Told each token the model wrote, says whether it is the last, and why.

    ends: the tokens that end a text. limit: the most tokens it may have.
    """

    def __init__(self, ends: Collection[int], limit: int):
        self.generated = 0
        """Tokens the model wrote."""
        self._ends, self._limit = ends, limit
        self._loop = LoopDetector()

    def take(self, token: int, is_cancelled: bool) -> FinishReason | None:
        """Account for one more token; why it is the last, None if it is not."""
        self.generated += 1
        if token in self._ends:
            return "stop"
        if is_cancelled:
            return "cancelled"
        if self.generated >= self._limit:
            return "length"
        return "loop" if self._loop.push(token) else None

    def forget_loop(self) -> None:
        """Look for loops in what comes from here on alone."""
        self._loop = LoopDetector()
