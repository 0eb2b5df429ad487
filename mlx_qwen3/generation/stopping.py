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
# Tokens between two searches for periods. A loop holds for longer than two of these before it is one.
INTERVAL = 128


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
        self._tokens: list[int] = []
        self._runs: dict[int, int] = {}  # how long each period has held, of those that may become a loop

    def push(self, token: int) -> bool:
        """Add a token; True once the text is in a loop. Takes a microsecond at any length."""
        tokens = self._tokens
        tokens.append(token)
        if self._runs:
            self._runs = {p: run + 1 for p, run in self._runs.items() if tokens[-1 - p] == token}
        if len(tokens) % INTERVAL == 0:
            self._runs = {period: self._run(period) for period in self._periods()}
        return any(run >= _needed(period) for period, run in self._runs.items())

    def _periods(self) -> list[int]:
        """Those that have held for the last `INTERVAL` tokens, as that of any loop will have."""
        recent = np.array(self._tokens[-INTERVAL - LONGEST_PERIOD :])
        windows = np.lib.stride_tricks.sliding_window_view(recent, INTERVAL)
        same = (windows[:-1] == windows[-1]).all(axis=1)
        return [len(same) - int(start) for start in np.flatnonzero(same)]

    def _run(self, period: int) -> int:
        """For how many of the latest tokens the period has held."""
        tokens = self._tokens
        start = stop = len(tokens)
        while start > period and tokens[start - 1] == tokens[start - 1 - period]:
            start -= 1
        return stop - start


def _needed(period: int) -> int:
    """How long a period holds in a loop: the first round is not counted."""
    return max(ROUNDS * period, SHORTEST_STRETCH) - period
