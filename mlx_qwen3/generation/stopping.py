"""Stop conditions: EOS, cancellation, the token limit, a repetition loop."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mlx_qwen3.events import FinishReason

LONGEST_PERIOD = 512
# A loop must have lasted this many tokens and this many rounds: people do ask for a word a hundred
# times, tables repeat their rules, and a list may well say the same thing three times.
SHORTEST_STRETCH = 400
ROUNDS = 4


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


class LoopDetector:
    """Told each token, says when the latest ones are `ROUNDS` rounds or more of one sequence."""

    def __init__(self) -> None:
        self._recent = np.full(LONGEST_PERIOD, -1, np.int64)  # newest first
        self._matches = np.zeros(LONGEST_PERIOD, np.int64)  # how long each period has held
        periods = np.arange(1, LONGEST_PERIOD + 1)
        self._needed = np.maximum(ROUNDS * periods, SHORTEST_STRETCH) - periods

    def push(self, token: int) -> bool:
        """Take one more token; True once the text is in a loop. Costs microseconds, whatever the length."""
        self._matches = np.where(self._recent == token, self._matches + 1, 0)
        self._recent[1:] = self._recent[:-1]
        self._recent[0] = token
        return bool((self._matches >= self._needed).any())
