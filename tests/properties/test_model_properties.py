"""However a text is fed, the logits are the same."""

from __future__ import annotations

from functools import cache as memo
from itertools import pairwise

import mlx.core as mx
import pytest
from conftest import KINDS, build
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.model_cases import DENSE, VOCAB, yarn

from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.model.qwen3 import Model

MODELS = {**{name: raw for name, raw in KINDS.items() if name != "dense-tied"}, "yarn": {**DENSE, **yarn(2)}}
TOLERANCE = 1e-4
QUICK = settings(max_examples=12, deadline=None)
ids = st.lists(st.integers(0, VOCAB - 1), min_size=2, max_size=24)


@memo
def model_of(kind: str) -> Model:
    return build(MODELS[kind])


def feed(model: Model, chunks: list[list[int]], cache: list[KVCache]) -> mx.array:
    """Logits of every token of `chunks`, fed one after the other."""
    return mx.concatenate([model(mx.array([chunk]), cache) for chunk in chunks if chunk], axis=1)


def cut(text: list[int], places: list[int]) -> list[list[int]]:
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


def same(a: mx.array, b: mx.array) -> bool:
    return mx.abs(a - b).max().item() <= TOLERANCE


@pytest.mark.parametrize("kind", MODELS)
@QUICK
@given(text=ids, places=st.lists(st.integers(0, 100), max_size=5))
def test_any_chunking_equals_one_pass_without_a_cache(kind: str, text: list[int], places: list[int]) -> None:
    model = model_of(kind)
    assert same(feed(model, cut(text, places), model.make_cache()), model(mx.array([text])))


@pytest.mark.parametrize("kind", MODELS)
@QUICK
@given(text=ids, wrong=ids, kept=st.integers(0, 24))
def test_trim_then_replay_equals_never_written(
    kind: str, text: list[int], wrong: list[int], kept: int
) -> None:
    model, kept = model_of(kind), min(kept, len(text) - 1)
    cache = model.make_cache()
    feed(model, [text[:kept], wrong], cache)
    assert {layer.trim(len(wrong)) for layer in cache} == {len(wrong)}
    assert same(feed(model, [text[kept:]], cache), model(mx.array([text]))[:, kept:])


@pytest.mark.parametrize("kind", MODELS)
@QUICK
@given(text=ids, place=st.integers(1, 24))
def test_a_restored_state_continues_where_it_was(kind: str, text: list[int], place: int) -> None:
    model, place = model_of(kind), min(place, len(text) - 1)
    cache = model.make_cache()
    feed(model, [text[:place]], cache)
    restored = model.make_cache()
    for new, old in zip(restored, cache, strict=True):
        new.state, new.meta_state = old.state, old.meta_state
    assert same(feed(model, [text[place:]], restored), feed(model, [text[place:]], cache))


@pytest.mark.parametrize("kind", MODELS)
@QUICK
@given(a=ids, b=ids)
def test_texts_of_a_batch_equal_each_alone(kind: str, a: list[int], b: list[int]) -> None:
    model, length = model_of(kind), min(len(a), len(b))
    batch = mx.array([a[:length], b[:length]])
    cache = model.make_cache()
    together = mx.concatenate([model(batch[:, :1], cache), model(batch[:, 1:], cache)], axis=1)
    assert same(together, mx.concatenate([model(batch[:1]), model(batch[1:])]))


@QUICK
@given(text=ids, start=st.integers(250, 262))
def test_growth_of_the_cache_changes_nothing(text: list[int], start: int) -> None:
    """The first buffer has 256 rows; a text that crosses its end has the same logits."""
    model = model_of("dense")
    before = [i % VOCAB for i in range(start)]
    cache = model.make_cache()
    feed(model, [before], cache)
    ours = feed(model, [[token] for token in text], cache)
    assert same(ours, model(mx.array([before + text]))[:, start:])
