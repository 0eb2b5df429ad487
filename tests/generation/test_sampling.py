"""Sampling: the distribution after filtering equals transformers', in numpy here and live in parity."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_qwen3.errors import SamplingError
from mlx_qwen3.generation.filters import BLOCK, filter_logits, likeliest
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import Sampler, choose_rows, penalize

VOCABULARY = 500
SETTINGS = [
    SamplingParams(temperature=0.6, top_p=0.95, top_k=20),
    SamplingParams(temperature=0.7, top_p=0.8, top_k=20),
    SamplingParams(temperature=1.3, top_p=1.0, top_k=7, min_p=0.2),
    SamplingParams(temperature=1.0, top_p=0.5, top_k=0),
    SamplingParams(temperature=0.9, top_p=0.3, top_k=100, min_p=0.05),
    SamplingParams(temperature=2.0, top_p=1.0, top_k=0, min_p=0.1),
    SamplingParams(temperature=1.0, top_p=1.0, top_k=0),
    SamplingParams(temperature=1.0, top_p=0.0001, top_k=0),
    SamplingParams(temperature=1.0, top_p=0.9, top_k=10_000),
]


def distribution(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """Probabilities (V,) that our filters leave."""
    ids, kept = filter_logits(mx.array(logits), params)
    probabilities = np.zeros(logits.size)
    where = slice(None) if ids is None else np.array(ids)
    probabilities[where] = np.array(mx.softmax(kept))
    return probabilities


def reference(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The same by the definitions, one token after the other, in double precision."""
    scores = logits.astype(np.float64) / params.temperature
    order = list(np.argsort(-scores))
    if params.top_k:
        order = order[: params.top_k]
    weights = np.exp(scores[order] - scores[order[0]])
    share, kept = 0.0, []
    for token, weight in zip(order, weights / weights.sum(), strict=True):
        if share < params.top_p:
            kept.append(token)
        share += weight
    weights = np.exp(scores[kept] - scores[kept[0]])
    kept = [token for token, weight in zip(kept, weights, strict=True) if weight >= params.min_p]
    probabilities = np.zeros(logits.size)
    probabilities[kept] = np.exp(scores[kept] - scores[kept[0]])
    return probabilities / probabilities.sum()


@pytest.mark.parametrize("params", SETTINGS, ids=str)
@pytest.mark.parametrize("spread", [0.5, 3.0, 12.0])
def test_filters_leave_the_defined_distribution(params: SamplingParams, spread: float) -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        logits = (rng.standard_normal(VOCABULARY) * spread).astype(np.float32)
        np.testing.assert_allclose(distribution(logits, params), reference(logits, params), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 12 * BLOCK),
    k=st.integers(1, 30),
    different=st.integers(1, 2000),
    hidden=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_likeliest_are_the_largest_ties_and_hidden_ones_included(
    size: int, k: int, different: int, hidden: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, different, size).astype(np.float32)
    logits[rng.random(size) < hidden] = -np.inf
    ids = np.array(likeliest(mx.array(logits), k))
    assert len(set(ids.tolist())) == min(k, size)
    np.testing.assert_array_equal(logits[ids], np.sort(logits)[::-1][:k])


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_likeliest_of_a_whole_vocabulary(dtype: mx.Dtype) -> None:
    logits = mx.random.normal((151_936,), key=mx.random.key(1)).astype(dtype)
    values = logits[likeliest(logits, 20)].astype(mx.float32)
    np.testing.assert_array_equal(values, mx.sort(logits.astype(mx.float32))[::-1][:20])


@pytest.mark.parity
@pytest.mark.parametrize("params", SETTINGS, ids=str)
def test_filters_equal_transformers(params: SamplingParams) -> None:
    torch = pytest.importorskip("torch")
    from transformers import generation

    steps = [generation.TemperatureLogitsWarper(params.temperature)]
    if params.top_k:
        steps.append(generation.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(generation.TopPLogitsWarper(params.top_p))
    if params.min_p:
        steps.append(generation.MinPLogitsWarper(params.min_p))
    rng = np.random.default_rng(8)
    for _ in range(20):
        logits = (rng.standard_normal(VOCABULARY) * 4).astype(np.float32)
        scores = torch.tensor(logits)[None]
        for step in steps:
            scores = step(None, scores)
        expected = torch.softmax(scores, -1)[0].numpy()
        np.testing.assert_allclose(distribution(logits, params), expected, atol=1e-5)


@pytest.mark.parity
def test_repetition_penalty_equals_transformers() -> None:
    torch = pytest.importorskip("torch")
    from transformers import generation

    rng = np.random.default_rng(9)
    logits = rng.standard_normal(VOCABULARY).astype(np.float32)
    said = rng.integers(0, VOCABULARY, 60)
    expected = generation.RepetitionPenaltyLogitsProcessor(1.3)(
        torch.tensor(said)[None], torch.tensor(logits)[None]
    )
    counts = mx.array(np.bincount(said, minlength=VOCABULARY).astype(np.int32))
    ours = penalize(mx.array(logits), counts, SamplingParams(repetition_penalty=1.3))
    np.testing.assert_allclose(np.array(ours), expected[0].numpy(), atol=1e-5)


def test_presence_and_frequency_penalties_are_taken_off_what_was_said() -> None:
    logits = mx.array([1.0, 2.0, 3.0])
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    penalized = penalize(logits, mx.array([0, 1, 4]), params)
    np.testing.assert_allclose(np.array(penalized), [1.0, 2.0 - 0.75, 3.0 - 1.5])


def test_sampler_counts_only_what_it_observed() -> None:
    """With a large penalty, two equal tokens alternate."""
    sampler = Sampler(SamplingParams(temperature=0, presence_penalty=2), 3)
    logits = mx.array([1.0, 0.9, -9.0])
    first = sampler(logits)
    assert first.item() == 0
    assert sampler(logits).item() == 0, "sampling alone must not count"
    sampler.observe(first)
    assert sampler(logits).item() == 1


def chi_square(drawn: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    """The statistic and its degrees of freedom; rare tokens count as one."""
    kept = np.sort(expected[expected > 0])[::-1] * drawn.sum()
    seen = drawn[expected > 0][np.argsort(-expected[expected > 0])]
    rare = kept < 10
    if rare.any():
        kept = np.append(kept[~rare], kept[rare].sum())
        seen = np.append(seen[~rare], seen[rare].sum())
    return float(((seen - kept) ** 2 / kept).sum()), len(kept) - 1


@pytest.mark.parametrize("params", [SETTINGS[0], SETTINGS[2], SETTINGS[4], SETTINGS[6]], ids=str)
def test_50_000_samples_follow_the_distribution(params: SamplingParams) -> None:
    logits = (np.random.default_rng(5).standard_normal(VOCABULARY) * 2).astype(np.float32)
    expected, sampler = distribution(logits, params), Sampler(params.with_values(seed=3), VOCABULARY)
    rows = mx.broadcast_to(mx.array(logits), (5000, VOCABULARY))
    drawn = np.zeros(VOCABULARY, int)
    for _ in range(10):
        tokens = choose_rows([sampler], [mx.zeros((4999,), mx.int32)], rows)
        drawn += np.bincount(np.array(tokens), minlength=VOCABULARY)
        for token in tokens:
            sampler.observe(token)
    assert drawn.sum() == 50_000
    assert drawn[expected == 0].sum() == 0
    statistic, freedom = chi_square(drawn, expected)
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5 + 6  # beyond the 99.9 % point


def test_neighbouring_places_are_independent() -> None:
    sampler = Sampler(SamplingParams(top_k=0, top_p=1, temperature=1, seed=8), 4)
    tokens = np.array(choose_rows([sampler], [mx.zeros((19_999,), mx.int32)], mx.zeros((20_000, 4))))
    pairs = np.bincount(4 * tokens[:-1] + tokens[1:], minlength=16)
    statistic, freedom = chi_square(pairs, np.full(16, 1 / 16))
    assert freedom == 15
    assert statistic < 37.7  # 99.9 % point


def test_a_seed_repeats_and_seeds_differ() -> None:
    logits = mx.zeros((1000,))

    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingParams(top_k=0, top_p=1, seed=seed), 1000)
        said = []
        for _ in range(300):
            token = sampler(logits)
            assert sampler(logits).item() == token.item(), "asked twice, it says the same"
            sampler.observe(token)
            said.append(int(token.item()))
        return said

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
    assert draw(None) != draw(None)
    assert len(set(draw(5))) > 200


@pytest.mark.parametrize(
    "params",
    [
        *SETTINGS,
        SamplingParams(temperature=0),
        SamplingParams(temperature=0, repetition_penalty=1.7),
        SamplingParams(presence_penalty=1.5, frequency_penalty=0.3),
    ],
    ids=str,
)
@pytest.mark.parametrize("constrained", [False, True])
def test_along_a_draft_comes_what_comes_one_by_one(params: SamplingParams, constrained: bool) -> None:
    """Whatever the draft, up to the first token that is not what would have come."""
    rng = np.random.default_rng(11)
    rows = mx.array(rng.standard_normal((7, VOCABULARY)).astype(np.float32)) * 4
    params = params.with_values(seed=2)
    limits = [Cycle(list(range(0, 300, 7)), free=2) if constrained else None for _ in range(2)]
    stepwise, at_once = (Sampler(params, VOCABULARY, limit) for limit in limits)
    for sampler in (stepwise, at_once):
        sampler.observe(mx.array(42))
    said = []
    for row in rows:
        token = stepwise(row)
        stepwise.observe(token)
        said.append(int(token.item()))
    for wrong in range(7):
        draft = [*said[:wrong], *[1 + token % 7 for token in said[wrong:6]]]
        agreed = next((i for i, (a, b) in enumerate(zip(draft, said, strict=False)) if a != b), 6)
        tokens = choose_rows([at_once], [mx.array(draft)], rows).tolist()
        assert tokens[: agreed + 1] == said[: agreed + 1]
        for place in range(wrong):
            guess = at_once.guess(rows[place : place + 1], mx.array(said[:place], mx.uint32))
            assert constrained or guess.tolist() == [said[place]]
        if constrained:
            assert limits[1].accepted == [42]


def test_what_a_draft_draws_is_what_would_have_come_as_often_as_can_be() -> None:
    """Two samplers of one seed agree far oftener than two of different seeds; see docs/speculative.md."""
    rng = np.random.default_rng(4)
    params = SamplingParams(temperature=1, top_k=20, top_p=1, seed=1)
    target = rng.standard_normal((4000, 50)).astype(np.float32) * 2
    draft = target + rng.standard_normal((4000, 50)).astype(np.float32) * 0.7
    nothing = mx.zeros((3999,), mx.int32)
    same = Sampler(params, 50)
    agreed = np.array(
        choose_rows([same], [nothing], mx.array(target)) == choose_rows([same], [nothing], mx.array(draft))
    ).mean()
    other = Sampler(params.with_values(seed=2), 50)
    chance = np.array(
        choose_rows([same], [nothing], mx.array(target)) == choose_rows([other], [nothing], mx.array(draft))
    ).mean()
    p, q = (np.stack([distribution(row, params) for row in rows[:500]]) for rows in (target, draft))
    best = np.minimum(p, q).sum(axis=1).mean()
    assert best - 0.08 < agreed < best
    assert agreed > 2.3 * chance


def test_presets_are_qwens() -> None:
    thinking, direct = SamplingParams.for_mode(True), SamplingParams.for_mode(False)
    assert (thinking.temperature, thinking.top_p, thinking.top_k, thinking.min_p) == (0.6, 0.95, 20, 0)
    assert (direct.temperature, direct.top_p, direct.top_k, direct.min_p) == (0.7, 0.8, 20, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("top_k", 1.5),
        ("min_p", 2),
        ("max_tokens", 0),
        ("presence_penalty", "much"),
        ("repetition_penalty", 0),
        ("temprature", 1),
    ],
)
def test_bad_values_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(SamplingError, match=name):
        SamplingParams().with_values(**{name: value})


class Cycle:
    """A constraint: only the next of `ids` may come, over and over, after `free` tokens without limits."""

    def __init__(self, ids: list[int], free: int = 0):
        self.ids, self.free = ids, free
        self.accepted: list[int] = []

    def mask(self) -> mx.array | None:
        place = len(self.accepted) - self.free
        return None if place < 0 else mx.arange(VOCABULARY) == self.ids[place % len(self.ids)]

    def accept(self, token: int) -> None:
        self.accepted.append(token)

    def rollback(self, count: int) -> None:
        del self.accepted[len(self.accepted) - count :]


@pytest.mark.parametrize(
    "params", [*SETTINGS, SamplingParams(temperature=0, repetition_penalty=1.5)], ids=str
)
def test_a_constraint_has_the_last_word(params: SamplingParams) -> None:
    constraint = Cycle([3, 499, 0], free=2)
    sampler = Sampler(params, VOCABULARY, constraint)
    said = []
    for row in np.random.default_rng(1).standard_normal((11, VOCABULARY)) * 20:
        token = sampler(mx.array(row))
        sampler.observe(token)
        said.append(int(token.item()))
    assert said[2:] == [3, 499, 0] * 3


def test_a_constraint_is_told_what_was_taken_and_nothing_else() -> None:
    constraint = Cycle([7])
    sampler = Sampler(SamplingParams(), VOCABULARY, constraint)
    first = sampler(mx.zeros(VOCABULARY))
    sampler(mx.zeros(VOCABULARY))  # ran ahead, and was thrown away
    assert constraint.accepted == []
    sampler.observe(first)
    sampler(mx.zeros(VOCABULARY))
    assert constraint.accepted == [7]


def test_without_limits_a_constraint_changes_nothing() -> None:
    logits = [mx.array(row) for row in np.random.default_rng(3).standard_normal((20, VOCABULARY)) * 5]
    plain, free = (
        Sampler(SamplingParams(seed=4), VOCABULARY, constraint) for constraint in (None, Cycle([0], free=99))
    )
    assert [int(plain(row).item()) for row in logits] == [int(free(row).item()) for row in logits]
