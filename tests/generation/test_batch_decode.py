"""A batch writes what each of its texts would be alone."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from functools import cache as memo
from itertools import islice
from typing import Any

import pytest
from conftest import KINDS, build
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.model_cases import DENSE, VOCAB, yarn

from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.generation.batch_decode import BatchDecoder, Row
from mlx_qwen3.generation.decode import decode, prefill
from mlx_qwen3.generation.sampling import Sampler, SamplingParams
from mlx_qwen3.model.qwen3 import Model

MODELS = {**{name: raw for name, raw in KINDS.items() if name != "dense-tied"}, "yarn": {**DENSE, **yarn(2)}}
STOP = range(0, VOCAB, 9)
GREEDY = SamplingParams(temperature=0)
QUICK = settings(max_examples=10, deadline=None)
token_ids = st.integers(0, VOCAB - 1)
limits = st.integers(1, 14)
work = st.lists(st.tuples(st.lists(token_ids, min_size=1, max_size=12), limits), min_size=1, max_size=5)
beginnings = st.lists(token_ids, max_size=9)
sizes = st.integers(1, 4)


@memo
def model_of(kind: str) -> Model:
    return build(MODELS[kind])


def alone(
    model: Model,
    prompt: Sequence[int],
    params: SamplingParams,
    limit: int,
    stop: Container[int] = STOP,
    **cache: Any,
) -> list[int]:
    """What `decode` writes after `prompt`, up to a stop token."""
    layers = make_prompt_cache(model, **cache)
    list(prefill(model, prompt[:-1], layers))
    said = []
    for token in islice(decode(model, prompt[-1:], layers, Sampler(params, VOCAB)), limit):
        said.append(token)
        if token in stop:
            break
    return said


def together(
    model: Model,
    texts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
    limits: Sequence[int],
    size: int = 3,
    room: int = 10**6,
    **cache: Any,
) -> list[list[int]]:
    rows = [Row(prompt, Sampler(own, VOCAB)) for prompt, own in zip(texts, params, strict=True)]
    said: dict[int, list[int]] = {id(row): [] for row in rows}
    limit = {id(row): most for row, most in zip(rows, limits, strict=True)}
    batch = BatchDecoder(model, rows, size, room, **cache)
    for tokens in batch.run():
        held = batch._layers[0].lengths
        assert len(held) <= size
        assert len(held) <= 1 or len(held) * max(held) <= room  # padding included
        for row, token in tokens:
            said[id(row)].append(token)
            row.is_done = token in STOP or len(said[id(row)]) == limit[id(row)]
    return [said[id(row)] for row in rows]


@pytest.fixture(autouse=True)
def small_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are let in that will soon have to make way, and few are read together."""
    monkeypatch.setattr("mlx_qwen3.generation.batch_decode.MARGIN", 2)
    monkeypatch.setattr("mlx_qwen3.generation.batch_decode.TOGETHER_TOKENS", 24)


@pytest.mark.parametrize("kind", MODELS)
@QUICK
@given(work=work, shared=beginnings, size=sizes, room=st.sampled_from([20, 60, 10**6]))
def test_greedy_rows_are_those_of_a_run_alone(
    kind: str, work: list[tuple[list[int], int]], shared: list[int], size: int, room: int
) -> None:
    """Whatever comes with them, joins and leaves, and even where rows must make way for others."""
    model, texts = model_of(kind), [shared + text for text, _ in work]
    expected = [alone(model, text, GREEDY, limit) for text, (_, limit) in zip(texts, work, strict=True)]
    assert together(model, texts, [GREEDY] * len(texts), [limit for _, limit in work], size, room) == expected


@pytest.mark.parametrize("bits", [4, 8])
@QUICK
@given(work=work, shared=beginnings, size=sizes)
def test_rows_of_quantized_caches_too(
    bits: int, work: list[tuple[list[int], int]], shared: list[int], size: int
) -> None:
    model, texts = model_of("dense"), [shared + text for text, _ in work]
    cache = {"bits": bits, "group_size": 32}
    expected = [
        alone(model, text, GREEDY, limit, **cache) for text, (_, limit) in zip(texts, work, strict=True)
    ]
    assert (
        together(model, texts, [GREEDY] * len(texts), [limit for _, limit in work], size, **cache) == expected
    )


sampling = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.6, 1.5]),
    top_p=st.sampled_from([0.8, 1.0]),
    top_k=st.sampled_from([0, 20]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    repetition_penalty=st.sampled_from([1.0, 1.2]),
    seed=st.integers(0, 10**6),
)


@QUICK
@given(
    work=st.lists(st.tuples(st.lists(token_ids, min_size=1), limits, sampling), max_size=5),
    size=sizes,
    alike=st.booleans(),
)
def test_a_row_with_a_seed_says_what_it_says_alone(
    work: list[tuple[list[int], int, SamplingParams]], size: int, alike: bool
) -> None:
    model = model_of("dense")
    if alike:  # but for their seeds
        first = SamplingParams(temperature=0.9) if not work else work[0][2]
        work = [(text, limit, replace(first, seed=own.seed)) for text, limit, own in work]
    expected = [alone(model, text, params, limit) for text, limit, params in work]
    texts, limits, params = zip(*work, strict=True) if work else ([], [], [])
    assert together(model, texts, params, limits, size) == expected


@QUICK
@given(prompt=st.lists(token_ids, min_size=1), other=st.lists(token_ids, min_size=1), fed=beginnings)
def test_what_is_fed_takes_the_place_of_the_token_chosen_last(
    prompt: list[int], other: list[int], fed: list[int]
) -> None:
    """As where `decode` is closed and started anew with what is fed."""
    model, params = model_of("dense"), SamplingParams(seed=3)
    layers, sampler = make_prompt_cache(model), Sampler(params, VOCAB)
    list(prefill(model, prompt[:-1], layers))
    expected = list(islice(decode(model, prompt[-1:], layers, sampler), 4))
    if fed:
        expected += islice(decode(model, fed, layers, sampler), 4)

    row = Row(prompt, Sampler(params, VOCAB))
    said: list[int] = []
    for tokens in BatchDecoder(model, [Row(other, Sampler(GREEDY, VOCAB)), row], 2, 10**6).run():
        said += [token for one, token in tokens if one is row]
        if len(said) == 4 and fed:
            row.feed.extend(fed)
            fed = []
        if len(said) >= len(expected):
            break
    assert said == expected


def test_rows_are_made_as_they_come() -> None:
    """A file of a million prompts needs no million samplers."""
    model, made = model_of("dense"), 0

    def rows() -> Iterator[Row]:
        nonlocal made
        for _ in range(50):
            made += 1
            yield Row([1, 2, 3], Sampler(GREEDY, VOCAB))

    done = 0
    for tokens in BatchDecoder(model, rows(), 4, 10**6).run():
        for row, _ in tokens:
            row.is_done = True
            done += 1
        assert made <= done + 2 * 4
    assert done == 50
