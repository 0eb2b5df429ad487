"""Speculation says what plain decoding says, and leaves caches as plain decoding does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS
from mlx_qwen3.cache.config import CacheConfig

import mlx.core as mx  # isort: skip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_map
from plain_decoding import decode_plainly
from recorded import Recorded, run
from tiny_checkpoints import DENSE, random_model

from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import NOTHING, Sampler
from mlx_qwen3.generation.speculative.draft_length import Pace
from mlx_qwen3.generation.speculative.drafters import Drafter, ModelDrafter, NGramDrafter
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

CACHES: dict[str, dict[str, Any]] = {
    "full": {},
    "quantized": {"bits": 8, "group_size": 32},
    "rotating": {"max_size": 40, "keep": 4},
    "rotating quantized": {"max_size": 40, "keep": 4, "bits": 8, "group_size": 32},
}
PARAMS = {
    "greedy": SamplingParams(temperature=0),
    "thinking": SamplingParams(seed=3),
    "hot": SamplingParams(temperature=1.0, top_k=0, top_p=1, seed=4),
    "penalties": SamplingParams(seed=5, presence_penalty=1.0, frequency_penalty=0.2, repetition_penalty=1.1),
}
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2, 7, 9, 5] * 2


class Lengths(Pace):
    """Drafts of given lengths, one after the other, over and over; 0 is a plain pass."""

    def __init__(self, lengths: Sequence[int]):
        super().__init__(longest=max(lengths))
        self._lengths, self._passes = lengths, 0

    def length(self) -> int:
        return self._lengths[self._passes % len(self._lengths)]

    def learn(self, drafted: int, accepted: int, seconds: float) -> None:
        self._passes += 1


@pytest.fixture(scope="module")
def model() -> Model:
    model = random_model(DENSE)
    # Sharper than weights as they are drawn, so that drafts come true now and then.
    model.update(tree_map(lambda weight: weight * 2 if weight.ndim == 2 else weight, model.parameters()))
    mx.eval(model.parameters())
    return model


@pytest.fixture(scope="module")
def small(model: Model) -> Model:
    """A model that often says what `model` says."""
    other = Model(ModelConfig.from_dict(DENSE))
    mx.random.seed(1)
    other.update(tree_map(lambda weight: weight + 0.01 * mx.random.normal(weight.shape), model.parameters()))
    mx.eval(other.parameters())
    return other


def make_drafter(kind: str, small: Model, lengths: Sequence[int], **options: Any) -> Drafter:
    drafter = (
        NGramDrafter(shortest=2)
        if kind == "text"
        else ModelDrafter(small, cache_config=CacheConfig(**options))
    )
    drafter.pace = Lengths(lengths)
    return drafter


def plain(model: Model, params: SamplingParams, count: int, **options: Any) -> list[int]:
    return decode_plainly(model, PROMPT, params, count, 300, **options)


def drafted(
    model: Any, drafter: Drafter, params: SamplingParams, count: int, constraint: Any = None, **options: Any
) -> Recorded:
    """A sequence of `count` tokens, decoded with the drafter."""
    sequence = Recorded(model, PROMPT, params, count, constraint=constraint, vocab_size=300, **options)
    sequence.drafter = drafter
    return sequence


@pytest.mark.parametrize("kind", ["text", "model"])
@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize("cache_kind", CACHES)
def test_the_same_tokens_as_without(
    model: Model, small: Model, cache_kind: str, params: SamplingParams, kind: str
) -> None:
    options = CACHES[cache_kind]
    sequence = drafted(model, make_drafter(kind, small, [4, 1, 0, 7], **options), params, 60, **options)
    run(model, [sequence])
    assert sequence.tokens == plain(model, params, 60, **options)
    assert sequence.cache is not None
    assert {layer.tokens for layer in sequence.cache.layers} == {len(sequence.cache.ids)}
    assert sequence.cache.ids[-59:] in (sequence.tokens[:-1], sequence.tokens[1:])
    if kind == "model":
        assert 0 < sequence.accepted < sequence.drafted
        assert sequence.decode_passes < 55


@pytest.mark.parametrize("kind", ["text", "model"])
@pytest.mark.parametrize("cache_kind", CACHES)
@settings(max_examples=6, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 8), min_size=1, max_size=4).filter(any),
    stops=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    forced=st.lists(st.integers(0, 299), min_size=1, max_size=20),
    which=st.sampled_from(list(PARAMS)),
)
def test_stopped_anywhere_it_goes_on_as_plain_decoding_does(
    model: Model,
    small: Model,
    cache_kind: str,
    kind: str,
    lengths: list[int],
    stops: list[int],
    forced: list[int],
    which: str,
) -> None:
    """As where a thinking budget ends: some tokens, then others fed in place of what would have come."""
    options, params = CACHES[cache_kind], PARAMS[which]
    places = {sum(stops[: number + 1]): forced for number in range(len(stops) - 1)}
    drafter = make_drafter(kind, small, lengths, **options)
    sequence = drafted(model, drafter, params, sum(stops), **options)
    sequence.forced_after = places
    run(model, [sequence])
    assert sequence.tokens == decode_plainly(model, PROMPT, params, sum(stops), 300, forced=places, **options)
    assert sequence.cache is not None
    assert {layer.tokens for layer in sequence.cache.layers} == {len(sequence.cache.ids)}
    if kind == "model":  # and the draft's cache holds nothing that was not accepted
        assert {layer.tokens for layer in drafter._cache.layers} == {len(drafter._cache.ids)}


class Sparse:
    """A constraint: after token t only t + 1, t + 3, t + 9 ... may come (modulo the vocabulary)."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def mask(self) -> mx.array | None:
        if len(self.accepted) % 5 == 4:
            return None
        latest = self.accepted[-1] if self.accepted else 0
        allowed = {(latest + step) % 300 for step in (1, 3, 9, 27, 81)}
        return mx.array([token in allowed for token in range(300)])

    def accept(self, token: int) -> None:
        mask = self.mask()
        assert mask is None or mask[token].item(), "a token that may not come must not be accepted"
        self.accepted.append(token)

    def rollback(self, count: int) -> None:
        assert 0 < count <= len(self.accepted)
        del self.accepted[len(self.accepted) - count :]


@pytest.mark.parametrize("kind", ["text", "model"])
@pytest.mark.parametrize("which", ["greedy", "hot", "penalties"])
def test_a_constraint_holds_along_drafts(model: Model, small: Model, kind: str, which: str) -> None:
    constraint = Sparse()
    sequence = drafted(model, make_drafter(kind, small, [3, 5]), PARAMS[which], 40, constraint)
    run(model, [sequence])
    assert constraint.accepted == sequence.tokens
    assert sequence.tokens == decode_plainly(model, PROMPT, PARAMS[which], 40, 300, Sparse())


def test_a_failing_model_ends_the_sequence_and_no_more(model: Model, small: Model) -> None:
    calls = 0

    class Failing:
        output_head = property(lambda self: model.output_head)
        hidden_states = staticmethod(model.hidden_states)
        scale_positions = staticmethod(model.scale_positions)
        use_adapter = staticmethod(model.use_adapter)

        def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise RuntimeError("out of memory")
            return model(inputs, cache)

    sequence = drafted(model, make_drafter("model", small, [3]), PARAMS["greedy"], 40)
    run(Failing(), [sequence])
    assert "out of memory" in str(sequence.ended[0])


# The text as its own draft


def longest_match(ids: list[int], shortest: int) -> int:
    """The length of the longest suffix that occurs earlier, 0 if it is shorter than `shortest`."""
    lengths = range(len(ids) - 1, shortest - 1, -1)
    return next((n for n in lengths if any(ids[i : i + n] == ids[-n:] for i in range(len(ids) - n))), 0)


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.integers(0, 2), max_size=40), shortest=st.integers(1, 4), count=st.integers(1, 12))
def test_text_drafts_what_followed_the_longest_match(ids: list[int], shortest: int, count: int) -> None:
    drafter = NGramDrafter(shortest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlx_qwen3.generation.speculative.drafters.MATCHES", 1000)
        list(drafter.begin(ids))
        draft = drafter.draft(count, Sampler(SamplingParams(), 3)).tolist()
    length = longest_match(ids, shortest)
    assert drafter.has_draft() == bool(draft) == bool(length)
    if not length:
        return
    # Some earlier place with that match is followed by the draft, and by itself beyond the text's end.
    ends = [i + length for i in range(len(ids) - length) if ids[i : i + length] == ids[-length:]]
    following = [(ids[end:] * count)[:count] for end in ends]
    assert draft == following[-1]


@given(first=st.lists(st.integers(0, 2), max_size=30), second=st.lists(st.integers(0, 2), max_size=30))
def test_text_forgets_what_was_taken_back(first: list[int], second: list[int]) -> None:
    changed, fresh = NGramDrafter(2), NGramDrafter(2)
    for ids in (first, second):
        list(changed.begin(ids))
    list(fresh.begin(second))
    assert vars(changed) | {"pace": None} == vars(fresh) | {"pace": None}


# A model as the draft


@pytest.mark.parametrize("cache_kind", ["full", "quantized"])
def test_a_draft_models_cache_follows_the_text(model: Model, small: Model, cache_kind: str) -> None:
    """After any turns, what it drafts is what a fresh one drafts."""
    options, sampler = CACHES[cache_kind], Sampler(PARAMS["greedy"], 300)
    used = make_drafter("model", small, [6], **options)
    sequence = drafted(model, used, PARAMS["greedy"], 13, **options)
    run(model, [sequence])
    said = sequence.tokens
    for prompt in ([*PROMPT, *said, 7, 8, 9], [*PROMPT, *said[:5], 1, 2], [*PROMPT[:20], 5, 5], [6]):
        fresh = make_drafter("model", small, [6], **options)
        drafts = []
        for drafter in (used, fresh):
            list(drafter.begin(prompt[:-1]))
            drafter.extend(prompt[-1])
            drafts.append(drafter.draft(6, sampler).tolist())
            drafter.discard()
        assert drafts[0] == drafts[1]


# How much to draft


def simulate(pace: Pace, acceptance: float, extra: float, tokens: int, seed: int = 0) -> float:
    """Tokens a second, of 1 by plain passes, where each token drafted adds `extra` of a pass."""
    import random

    rng, said, seconds = random.Random(seed), 0, 0.0
    while said < tokens:
        drafted, accepted = pace.length(), 0
        while accepted < drafted and rng.random() < acceptance:
            accepted += 1
        took = (1 + extra * drafted) * rng.uniform(0.9, 1.1)
        pace.learn(drafted, accepted, took)
        said, seconds = said + accepted + 1, seconds + took
    return said / seconds


@pytest.mark.parametrize("extra", [0.02, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.6, 0.9])
def test_the_pace_is_near_the_best_and_never_much_below_plain(acceptance: float, extra: float) -> None:
    def rate(length: int) -> float:
        return sum(acceptance**i for i in range(length + 1)) / (1 + extra * length)

    best = max(rate(length) for length in range(9))
    reached = simulate(Pace(8), acceptance, extra, 2000)
    assert reached > 0.96
    assert reached > 0.85 * best


def test_the_pace_notices_that_drafts_began_to_come_true() -> None:
    pace = Pace(8)
    assert simulate(pace, 0.0, 0.2, 3000) > 0.95
    assert simulate(pace, 0.95, 0.2, 1500) > 1.9


def test_an_empty_draft_is_a_plain_pass() -> None:
    assert NOTHING.tolist() == NGramDrafter().draft(5, Sampler(SamplingParams(), 9)).tolist() == []
