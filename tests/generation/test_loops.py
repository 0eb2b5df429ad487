"""Loops of any length stop; honest repetition does not."""

from __future__ import annotations

import random

import pytest

from mlx_qwen3.generation.stopping import LoopDetector


def tokens_until_stop(tokens: list[int]) -> int | None:
    detector = LoopDetector()
    return next((i for i, token in enumerate(tokens) if detector.push(token)), None)


@pytest.mark.parametrize("period", [1, 2, 7, 10, 19, 21, 50, 100, 137, 200, 400, 512])
def test_a_loop_stops_within_five_rounds_or_its_shortest_stretch(period: int) -> None:
    rng = random.Random(period)
    before = [rng.randrange(150_000) for _ in range(1000)]
    loop = [rng.randrange(150_000) for _ in range(period)] * (3000 // period + 1)
    stopped = tokens_until_stop(before + loop)
    assert stopped is not None
    assert stopped - len(before) <= max(5 * period, 420)


@pytest.mark.parametrize(
    "honest",
    [
        list(range(3000)),
        [5, 6] * 150,  # a word a hundred and fifty times
        ([7] * 60 + [8]) * 3,
        [token for row in range(300) for token in (1, 2, row, 3)],  # a table: the same but for one cell
        [9] * 399,
    ],
)
def test_honest_repetition_goes_on(honest: list[int]) -> None:
    assert tokens_until_stop(honest) is None


def test_text_that_recovers_goes_on() -> None:
    loop = [1, 2, 3] * 120
    assert tokens_until_stop([*loop, 4, *loop, 5, *loop]) is None
