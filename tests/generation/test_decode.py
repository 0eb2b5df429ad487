"""Prefill and decode: what is fed, in which chunks, and what the cache holds when one stops."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import ClassVar

import mlx.core as mx
import pytest
from scripted import ScriptedModel, write_byte_tokenizer

from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.generation.decode import decode
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.prefill import LARGEST_CHUNK, SMALLEST_CHUNK, AdaptiveChunkSize, fill, prefill
from mlx_qwen3.generation.sampling import Sampler

Time = Callable[[int], float]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ScriptedModel:
    return ScriptedModel(load_tokenizer(write_byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


def settle(time: Time, chunks: int = 40) -> list[int]:
    """The sizes used where a chunk of n tokens takes time(n) seconds."""
    sizes, used = AdaptiveChunkSize(), []
    for _ in range(chunks):
        used.append(sizes.size)
        sizes.record(sizes.size, time(sizes.size))
    return used


@pytest.mark.parametrize(
    ("time", "size"),
    [
        (lambda n: n / 10_000, LARGEST_CHUNK),  # quick: as large as may be
        (lambda n: n / 1000, 256),  # a quarter of a second as it is
        (lambda n: n / 400, 128),
        (lambda n: n / 20, SMALLEST_CHUNK),  # slow, and the same at every size
        (lambda n: 10 + n / 1000, 256),  # all in reading the weights: halving gains nothing
        (lambda n: n / (100 if n >= 128 else 50), 128),  # small products at half the speed
        (lambda n: n / {256: 100, 128: 80, 64: 60}.get(n, 45), 128),  # no step of much, but all together
    ],
)
def test_chunks_settle_where_their_time_suits(time: Time, size: int) -> None:
    assert set(settle(time)[10:]) == {size}


def test_a_chunk_of_another_size_teaches_nothing() -> None:
    sizes = AdaptiveChunkSize()
    sizes.record(sizes.size - 1, 100.0)
    assert sizes.size == AdaptiveChunkSize().size


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 100])
def test_prefill_feeds_everything_once(model: ScriptedModel, chunk_size: int | None) -> None:
    model.fed.clear()
    cache, ids = model.make_cache(), [(7 * i) % 250 for i in range(600)]
    done = list(prefill(model, ids, cache, chunk_size))
    assert model.fed == ids
    assert done[-1] == 600
    assert done == sorted(done)
    assert cache[0].offset == 600


def test_an_empty_prompt_is_nothing_to_do(model: ScriptedModel) -> None:
    assert list(prefill(model, [], model.make_cache())) == []


def test_fill_feeds_what_a_cache_lacks(model: ScriptedModel) -> None:
    cache = PromptCache(model)
    list(fill(cache, model, [1, 2, 3, 4]))
    model.fed.clear()
    list(fill(cache, model, [1, 2, 3, 9, 9]))
    assert model.fed == [9, 9]
    assert cache.ids == [1, 2, 3, 9, 9]
    assert list(fill(cache, model, [1, 2, 3, 9, 9])) == []


def test_stopping_leaves_the_cache_with_exactly_what_was_yielded(model: ScriptedModel) -> None:
    cache = PromptCache(model)
    sampler = Sampler(SamplingParams(temperature=0), model.args.vocab_size)
    tokens = decode(model, [1, 2, 3], cache, sampler)
    taken = list(islice(tokens, 5))
    tokens.close()
    assert cache.ids == [1, 2, 3, *taken]
    assert {layer.offset for layer in cache.layers} == {3 + 5}


def test_a_constraint_has_accepted_the_tokens_yielded_in_order(model: ScriptedModel) -> None:
    class Evens:
        accepted: ClassVar[list[int]] = []

        def mask(self) -> mx.array:
            return mx.arange(model.args.vocab_size) % 2 == 0

        def accept(self, token: int) -> None:
            self.accepted.append(token)

        def rollback(self, count: int) -> None:
            del self.accepted[-count:]

    sampler = Sampler(SamplingParams(), model.args.vocab_size, Evens())
    tokens = list(islice(decode(model, [5, 6, 7], PromptCache(model), sampler), 8))
    assert Evens.accepted == tokens[: len(Evens.accepted)]
    assert len(Evens.accepted) >= 7
    assert all(token % 2 == 0 for token in tokens)
