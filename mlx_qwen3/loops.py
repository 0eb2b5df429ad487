"""Notices text that goes round in a loop, of whatever length, and would never end by itself."""

from __future__ import annotations

import numpy as np

LONGEST_PERIOD = 512
# A loop must have lasted this many tokens and this many rounds: people do ask for a word a hundred
# times, tables repeat their rules, and a list may well say the same thing three times.
SHORTEST_STRETCH = 400
ROUNDS = 4


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
