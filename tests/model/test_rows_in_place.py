"""Kernels append rows in the memory of a cache: what was given away of the cache before never changes."""

from __future__ import annotations

import random
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from model.test_cpu_step import pair

from mlx_qwen3.backend.switches import has_kernels
from mlx_qwen3.cache.batch import batched_layers
from mlx_qwen3.cache.kv import STEP, KVCache
from mlx_qwen3.model.qwen3 import Model

pytestmark = pytest.mark.skipif(not has_kernels(), reason="kernels are for Linux CPUs")


class Text:
    """Ids, the caches that were filled with them, and what was given away of the caches on the way."""

    def __init__(self, ids: list[int], caches: list[KVCache]):
        self.ids, self.caches = ids, caches

    def fork(self) -> Text:
        return Text(list(self.ids), [cache.copy() for cache in self.caches])

    def trim(self, count: int) -> None:
        for cache in self.caches:
            cache.trim(count)
        self.ids = self.ids[: len(self.ids) - count]


@pytest.fixture(scope="module")
def model() -> Model:
    return pair("dense", "affine-4")[1]


def step(model: Model, texts: list[Text], new: list[list[int]]) -> None:
    """One pass over new ids of each text."""
    ids = mx.array([id for own in new for id in own])[:, None]
    model(ids, batched_layers([text.caches for text in texts], [len(own) for own in new]))
    for text, own in zip(texts, new, strict=True):
        text.ids += own


def check(model: Model, ids: list[int], layer: int, state: tuple[Any, ...]) -> None:
    """`state` is that of a cache that was filled with `ids` alone."""
    keys, values, offset = state
    fresh = model.make_cache()
    if ids:
        model(mx.array([ids]), fresh)
    assert offset == len(ids)
    if not ids:
        return
    for rows, expected in zip((keys, values), fresh[layer].state, strict=False):
        np.testing.assert_allclose(np.array(rows), np.array(expected), atol=2e-4)


@pytest.mark.parametrize("seed", range(12))
def test_what_was_given_away_never_changes(model: Model, seed: int) -> None:
    chance = random.Random(seed)
    texts = [Text([], model.make_cache()) for _ in range(3)]
    given: list[tuple[list[int], int, tuple[Any, ...]]] = []
    for _ in range(60):
        text = chance.choice(texts)
        what = chance.randrange(10)
        if what == 0:
            layer = chance.randrange(len(text.caches))
            given.append((list(text.ids), layer, text.caches[layer].state))
            if chance.random() < 0.5:
                mx.eval(given[-1][2][:2])
        elif what == 1:
            texts[chance.randrange(len(texts))] = text.fork()
        elif what == 2:
            text.trim(chance.randint(0, min(5, len(text.ids))))
        elif what == 3:
            text.caches[0].detach()
        else:
            together = chance.sample(texts, chance.randint(1, len(texts)))
            lengths = [chance.choice([1, 1, 1, 2, 5, 40]) for _ in together]
            step(model, together, [[chance.randrange(96) for _ in range(length)] for length in lengths])
    for text in texts:
        given += [(text.ids, layer, cache.state) for layer, cache in enumerate(text.caches)]
    for ids, layer, state in given:
        check(model, ids, layer, state)


def test_rows_are_written_where_they_stay(model: Model) -> None:
    text = Text([], model.make_cache())
    step(model, [text], [[1, 2, 3]])
    places = [cache.places() for cache in text.caches]
    for number in range(STEP - 3):
        step(model, [text], [[number % 96]])
        assert [cache.places() for cache in text.caches] == places
    step(model, [text], [[5]])  # one more than there is memory for
    assert all(cache.capacity > STEP for cache in text.caches)
    check(model, text.ids, 0, text.caches[0].state)


def test_a_whole_buffer_of_new_rows_is_not_written_to(model: Model) -> None:
    keys, values = (mx.random.normal((1, 2, STEP, 32)) for _ in range(2))
    expected = np.array(keys)
    cache = KVCache()
    cache.extend(keys, values)  # MLX may take the rows themselves for the buffer
    cache.trim(5)
    assert [place.room for place in cache.places()] == [0, 0]
    np.testing.assert_array_equal(np.array(keys), expected)
