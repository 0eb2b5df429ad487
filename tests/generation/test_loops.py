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


def is_loop(tokens: list[int]) -> bool:
    """By the definition: a period of up to 512 was repeated at least four times, for 400 tokens or more."""
    for period in range(1, 513):
        length = max(4 * period, 400)
        if len(tokens) >= length and tokens[-1] == tokens[-1 - period]:
            end = tokens[-length:]
            if end[period:] == end[:-period]:
                return True
    return False


@pytest.mark.parametrize("seed", range(5))
def test_a_loop_is_noticed_at_the_very_token(seed: int) -> None:
    rng = random.Random(seed)
    tokens: list[int] = []
    while len(tokens) < 1500:
        if rng.random() < 0.5:
            tokens += [rng.randrange(3) for _ in range(rng.randrange(1, 300))]
        else:
            period = [rng.randrange(rng.choice([2, 1000])) for _ in range(rng.choice([1, 2, 3, 30, 99, 133]))]
            tokens += period * rng.randrange(1, 5 + 300 // len(period))
    detector = LoopDetector()
    for count, token in enumerate(tokens, 1):
        noticed = detector.push(token)
        assert noticed == is_loop(tokens[:count])
        if noticed:
            return
