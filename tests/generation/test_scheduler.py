"""One scheduler: each sequence generates what it generates alone, whatever runs beside it."""

from __future__ import annotations

import os
import random
from functools import cache as memo
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import pytest
from conftest import KINDS, build
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.model_cases import DENSE, VOCAB, yarn
from recorded import Recorded, check, expected, run

from mlx_qwen3.cache.prefix_pool import PrefixPool
from mlx_qwen3.errors import EngineError, Qwen3Error
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.scheduler import Scheduler
from mlx_qwen3.generation.sequence import Priority
from mlx_qwen3.generation.speculative.drafters import NGramDrafter
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

MODELS = {**{name: raw for name, raw in KINDS.items() if name != "dense-tied"}, "yarn": {**DENSE, **yarn(2)}}
CACHES: list[dict[str, Any]] = [
    {},
    {"bits": 8, "group_size": 32},
    {"bits": 4, "group_size": 32},
    {"max_size": 24, "keep": 4},
    {"max_size": 24, "keep": 4, "bits": 8, "group_size": 32},
]
QUICK = settings(max_examples=12, deadline=None)
EOS = range(0, VOCAB, 9)


@memo
def model_of(kind: str) -> Model:
    return build(MODELS[kind])


params_strategy = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.6, 1.5]),
    top_p=st.sampled_from([0.8, 1.0]),
    top_k=st.sampled_from([0, 20]),
    min_p=st.sampled_from([0.0, 0.05]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, 0.3]),
    repetition_penalty=st.sampled_from([1.0, 1.2]),
    logit_bias=st.sampled_from([(), ((3, 5.0), (40, -100.0))]),
    seed=st.integers(0, 10**6),
)
token_ids = st.integers(0, VOCAB - 1)
work = st.lists(
    st.tuples(
        st.lists(token_ids, min_size=1, max_size=40),
        st.integers(1, 14),
        params_strategy,
        st.sampled_from(CACHES),
        st.integers(0, 20),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("kind", MODELS)
@QUICK
@given(work=work, size=st.integers(1, 4))
def test_each_sequence_generates_what_it_does_alone(kind: str, work: list[Any], size: int) -> None:
    """With any caches, parameters, arrivals and lengths side by side."""
    model = model_of(kind)
    sequences = [Recorded(model, p, params, limit, EOS, **cache) for p, limit, params, cache, _ in work]
    run(model, sequences, size, [arrival for *_, arrival in work])
    for sequence, (_, _, params, cache, _) in zip(sequences, work, strict=True):
        check(model, sequence, params, **cache)


def test_random_sequences_by_the_hundred() -> None:
    """150, or 2,000 with MLX_QWEN3_LONG_TESTS=1: arrivals, seeds, cancels, forced ids, windows, bits."""
    rng, model = random.Random(11), model_of("dense")
    for _ in range(40 if os.environ.get("MLX_QWEN3_LONG_TESTS") else 3):
        jobs, arrivals = [], []
        for number in range(50):
            params = SamplingParams(
                temperature=rng.choice([0, 0.7, 1.2]),
                top_k=rng.choice([0, 20]),
                presence_penalty=rng.choice([0, 0, 1.0]),
                seed=number,
            )
            cache = rng.choice(CACHES)
            prompt = [rng.randrange(VOCAB) for _ in range(rng.randrange(1, 60))]
            sequence = Recorded(
                model,
                prompt,
                params,
                limit=rng.randrange(1, 12),
                stop=EOS if rng.random() < 0.5 else (),
                forced={rng.randrange(1, 6): [rng.randrange(VOCAB) for _ in range(3)]}
                if rng.random() < 0.2
                else None,
                cancel_after=rng.randrange(8) if rng.random() < 0.2 else None,
                priority=rng.choice([Priority.INTERACTIVE, Priority.BATCH]),
                **cache,
            )
            if sequence.cancel_after == 0:
                sequence.cancel_after = None
            jobs.append((sequence, params, cache))
            arrivals.append(rng.randrange(60))
        run(model, [sequence for sequence, *_ in jobs], size=8, arrivals=arrivals)
        for sequence, params, cache in jobs:
            check(model, sequence, params, **cache)


@QUICK
@given(work=work, size=st.integers(1, 4), room=st.integers(20, 120))
def test_sequences_that_outgrow_the_room_wait_and_lose_nothing(work: list[Any], size: int, room: int) -> None:
    model, pressure = model_of("dense"), []
    sequences = [Recorded(model, p, params, limit, EOS) for p, limit, params, *_ in work]
    scheduler = Scheduler(model, size=size, room=room)
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.step():
        holding = [sequence for sequence in sequences if sequence.cache is not None and not sequence.ended]
        pressure.append(sum(sequence.length for sequence in holding))
        assert len(holding) <= 1 or pressure[-1] <= room + len(holding)
    for sequence, (_, _, params, *_) in zip(sequences, work, strict=True):
        assert sequence.tokens == expected(model, sequence, params)


def test_eviction_happens_and_the_text_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_qwen3.generation.admission.MARGIN", 1)
    model, params = model_of("dense"), SamplingParams(seed=5, presence_penalty=1.0)
    sequences = [Recorded(model, [n, 2, 3], params, limit=30) for n in range(4)]
    run(model, sequences, size=4, room=60)
    assert max(sequence.opened for sequence in sequences) > 1
    for sequence in sequences:
        check(model, sequence, params)


def test_a_higher_priority_takes_the_place_of_a_lower_one() -> None:
    model, params = model_of("dense"), SamplingParams(temperature=0)
    batch = [Recorded(model, [n, 1], params, 60, priority=Priority.BATCH) for n in range(3)]
    person = Recorded(model, [9, 9], params, 3)
    finished: list[str] = []
    person.close = lambda error: finished.append("person")  # type: ignore[method-assign]
    batch[0].close = lambda error: finished.append("batch")  # type: ignore[method-assign]
    run(model, [*batch, person], size=2, arrivals=[0, 0, 0, 6])
    assert finished == ["person", "batch"]
    assert [s.tokens for s in batch] == [expected(model, s, params) for s in batch]
    assert max(s.opened for s in batch) == 1, "it keeps its cache while it waits"


def test_work_in_the_background_waits_for_everything_else() -> None:
    model, params = model_of("dense"), SamplingParams(temperature=0)
    aside = Recorded(model, list(range(40)), params, priority=Priority.BACKGROUND)
    aside.sampler = None
    person = Recorded(model, [9, 9], params, 5)
    order: list[str] = []
    aside.close = lambda error: order.append("aside")  # type: ignore[method-assign]
    person.close = lambda error: order.append("person")  # type: ignore[method-assign]
    run(model, [aside, person], size=4)
    assert order == ["person", "aside"]
    assert aside.cache is not None
    assert aside.cache.ids == list(range(40))
    assert aside.tokens == []


def test_a_long_prompt_stalls_others_for_no_more_than_a_chunk() -> None:
    model, params = model_of("dense"), SamplingParams(temperature=0)
    writer = Recorded(model, [1, 2], params, 60)
    reader = Recorded(model, [n % VOCAB for n in range(1500)], params, 2)
    scheduler = Scheduler(model, size=4)
    scheduler.add(writer)
    while len(writer.tokens) < 3:
        scheduler.step()
    scheduler.add(reader)
    between = []
    while reader.progress[-1:] != [1500]:
        before = len(writer.tokens)
        scheduler.step()
        between.append(len(writer.tokens) - before)
    assert len(reader.progress) > 3, "in several chunks"
    assert between.count(0) <= 2, "a token of the writer with each chunk"


def test_a_prefix_that_prompts_share_is_prefilled_once() -> None:
    model, params, pool = model_of("dense"), SamplingParams(temperature=0), PrefixPool(10**9)
    shared = [n % VOCAB for n in range(90)]
    sequences = [Recorded(model, [*shared, n], params, 3, pool=pool) for n in range(5)]
    run(model, sequences, size=5)
    assert [sequence.cached for sequence in sequences] == [0, 90, 90, 90, 90]
    for sequence in sequences:
        assert sequence.tokens == expected(model, sequence, params)


@QUICK
@given(
    prompt=st.lists(token_ids, min_size=1, max_size=30),
    which=st.sampled_from(CACHES),
    seed=st.integers(0, 99),
)
def test_a_drafter_changes_nothing(prompt: list[int], which: dict[str, Any], seed: int) -> None:
    """Alone, then beside another, then alone again."""
    model, params = model_of("dense"), SamplingParams(seed=seed, temperature=0.3)
    drafted = Recorded(model, prompt * 3, params, 40, forced={7: [1, 2, 3]}, **which)
    drafted.drafter = NGramDrafter(shortest=1)
    other = Recorded(model, [5], params, 4)
    run(model, [drafted, other], size=2, arrivals=[0, 12])
    check(model, drafted, params, **which)
    check(model, other, params)


def test_different_scalings_of_positions_run_side_by_side() -> None:
    base = model_of("dense")
    scaled = ModelConfig.from_dict({**DENSE, **yarn(2)}).rope_scaling
    params = SamplingParams(temperature=0)
    sequences = [Recorded(base, [n, 3, 4, 5], params, 12) for n in range(4)]
    for sequence in sequences[:2]:
        sequence.scaling = scaled
    run(base, sequences, size=4)
    base.scale_positions(None)
    assert sequences[3].tokens == expected(base, sequences[3], params)
    base.scale_positions(scaled)
    assert sequences[0].tokens == expected(base, sequences[0], params)
    base.scale_positions(None)


# Faults stay where they are


class Failing:
    """A constraint that breaks after some tokens."""

    def __init__(self, after: int):
        self.left = after

    def mask(self) -> mx.array | None:
        return None

    def accept(self, token: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise ValueError("a grammar that ends badly")

    def rollback(self, count: int) -> None:
        self.left += count


@pytest.mark.parametrize("where", ["constraint", "take", "open", "prefilled"])
def test_an_exception_ends_its_own_sequence_alone(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = model_of("dense"), SamplingParams(temperature=0)
    bad = Recorded(model, [1, 2], params, 10, constraint=Failing(3) if where == "constraint" else None)

    def fail(*_: object) -> None:
        raise ValueError("a listener that is broken")

    if where != "constraint":
        monkeypatch.setattr(bad, where, fail)
    good = [Recorded(model, [n, 7], params, 10) for n in range(3)]
    run(model, [good[0], bad, *good[1:]], size=4)
    assert isinstance(bad.ended[0], EngineError)
    assert "ValueError" in str(bad.ended[0])
    for sequence in good:
        check(model, sequence, params)


class Breaking:
    """A model that fails once."""

    def __init__(self, model: Model, at: int, lazily: bool):
        self.model, self.left, self.lazily = model, at, lazily
        self.scale_positions, self.use_adapter = model.scale_positions, model.use_adapter

    def broken(self, logits: mx.array) -> mx.array:
        self.left -= 1
        if self.left == 0 and self.lazily:
            return logits * mx.nan
        if self.left == 0:
            raise RuntimeError("out of memory")
        return logits

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        return self.broken(self.model(inputs, cache))

    def hidden_states(self, inputs: mx.array, cache: Any) -> mx.array:
        return self.model.hidden_states(inputs, cache)

    @property
    def output_head(self) -> Any:
        return self.model.output_head


@pytest.mark.parametrize("lazily", [False, True])
def test_a_failed_pass_ends_those_in_it_and_others_go_on(lazily: bool) -> None:
    model, params = model_of("dense"), SamplingParams(temperature=0)
    sequences = [Recorded(model, [n, 7], params, 10) for n in range(2)]
    later = Recorded(model, [3, 7], params, 10)
    breaking = Breaking(model, 4, lazily)
    scheduler = Scheduler(breaking, size=4)  # type: ignore[arg-type]
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.step():
        pass
    assert all(isinstance(sequence.ended[0], EngineError) for sequence in sequences)
    said = "not numbers" if lazily else "out of memory"
    assert all(said in str(sequence.ended[0]) for sequence in sequences)
    scheduler.add(later)
    while scheduler.step():
        pass
    check(model, later, params)


def test_abandoning_ends_all_with_the_error() -> None:
    model, params = model_of("dense"), SamplingParams(temperature=0)
    sequences = [Recorded(model, [n, 7], params, 50) for n in range(5)]
    scheduler = Scheduler(model, size=2)
    for sequence in sequences:
        scheduler.add(sequence)
    for _ in range(4):
        scheduler.step()
    scheduler.abandon(EngineError("the engine was closed"))
    assert [str(sequence.ended[0]) for sequence in sequences] == ["the engine was closed"] * 5
    assert scheduler.is_idle


# What is reported


def test_logprobs_are_the_models_own() -> None:
    model = model_of("dense")
    params = SamplingParams(temperature=0.5, presence_penalty=2.0, seed=1)
    sequence, other = Recorded(model, [1, 2, 3], params, 6), Recorded(model, [4], params, 6)
    sequence.wants_logprobs, other.wants_logprobs = 4, None
    run(model, [sequence, other], size=2)
    ids = list(sequence.prompt_ids)
    for token, told in zip(sequence.tokens, sequence.logprobs, strict=True):
        logits = model(mx.array([ids]))[0, -1]
        logprobs = logits - mx.logsumexp(logits)
        best = mx.argsort(-logprobs)[:4].tolist()
        assert told.token == token
        assert told.logprob == pytest.approx(logprobs[token].item(), abs=1e-4)
        assert [id_ for id_, _ in told.top] == best
        assert [value for _, value in told.top] == pytest.approx(logprobs[mx.array(best)].tolist(), abs=1e-4)
        ids.append(token)
    assert other.logprobs == []


def test_figures_say_what_ran_together() -> None:
    model, params = model_of("dense"), SamplingParams(temperature=0)
    alone, pair = Recorded(model, [1], params, 5), [Recorded(model, [n, 2], params, 40) for n in range(2)]
    scheduler = Scheduler(model, size=4)
    scheduler.add(alone)
    while scheduler.step():
        pass
    for sequence in pair:
        scheduler.add(sequence)
    for _ in range(5):
        scheduler.step()
    stats = scheduler.stats()
    assert (stats.running, stats.waiting) == (2, 0)
    assert stats.kv_bytes > 0
    while scheduler.step():
        pass
    assert (alone.largest_batch, [s.largest_batch for s in pair]) == (1, [2, 2])
    assert scheduler.stats().generated == 85
    assert 0 < pair[0].times.added <= pair[0].times.admitted <= pair[0].times.first_token


def test_errors_of_ours_reach_the_sequence_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model, error = model_of("dense"), Qwen3Error("no room for this")
    sequence = Recorded(model, [1], SamplingParams())

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(sequence, "open", fail)
    run(model, [sequence])
    assert sequence.ended == [error]
