"""Stop conditions: EOS, the token limit, a repetition loop."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mlx_qwen3.events import FinishReason

LONGEST_PERIOD = 512
# A loop lasts at least so many tokens and so many rounds: people do ask for a word a hundred times, tables
# repeat their rules, and a list may say the same thing three times.
SHORTEST_STRETCH = 400
ROUNDS = 4


class StopConditions:
    """Decides after each token whether generation stops, and why."""

    def __init__(self, eos_token_ids: Collection[int], limit: int):
        """limit: the most tokens to generate."""
        self.generated = 0
        self._eos_token_ids, self._limit = eos_token_ids, limit
        self._loop = LoopDetector()

    def push(self, token: int) -> FinishReason | None:
        """Count `token`; the reason to stop after it, None to go on."""
        self.generated += 1
        if token in self._eos_token_ids:
            return "stop"
        if self.generated >= self._limit:
            return "length"
        return "loop" if self._loop.push(token) else None

    def restart_loop_detection(self) -> None:
        """Look for loops only in tokens from here on."""
        self._loop = LoopDetector()


class LoopDetector:
    """Detects text that repeats one period `ROUNDS` times or more."""

    def __init__(self) -> None:
        self._recent = np.full(LONGEST_PERIOD, -1, np.int64)  # newest first
        self._matches = np.zeros(LONGEST_PERIOD, np.int64)  # how long each period has held
        periods = np.arange(1, LONGEST_PERIOD + 1)
        self._needed = np.maximum(ROUNDS * periods, SHORTEST_STRETCH) - periods

    def push(self, token: int) -> bool:
        """Add a token; True once the text is in a loop. Takes microseconds at any length."""
        self._matches = np.where(self._recent == token, self._matches + 1, 0)
        self._recent[1:] = self._recent[:-1]
        self._recent[0] = token
        return bool((self._matches >= self._needed).any())
