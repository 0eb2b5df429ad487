"""Prefill and decode: what is fed, in which chunks, and what the cache holds when one stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import mlx.core as mx
import pytest
from scripted import ScriptedModel, write_byte_tokenizer

from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.generation.decode import LARGEST_CHUNK, SMALLEST_CHUNK, ChunkSizes, decode, prefill
from mlx_qwen3.generation.sampling import Sampler, SamplingParams

Time = Callable[[int], float]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ScriptedModel:
    return ScriptedModel(load_tokenizer(write_byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


def settle(time: Time, chunks: int = 40) -> list[int]:
    """The sizes used where a chunk of n tokens takes time(n) seconds."""
    sizes, used = ChunkSizes(), []
    for _ in range(chunks):
        used.append(sizes.size)
        sizes.learn(time(sizes.size))
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


def test_stopping_leaves_the_cache_with_exactly_what_was_yielded(model: ScriptedModel) -> None:
    cache = model.make_cache()
    sampler = Sampler(SamplingParams(temperature=0), model.args.vocab_size)
    tokens = decode(model, [1, 2, 3], cache, sampler)
    taken = [next(tokens) for _ in range(5)]
    tokens.close()
    assert len(taken) == 5
    assert cache[0].offset == 3 + 5


def test_the_sampler_is_told_of_each_token_before_it_chooses_the_next(model: ScriptedModel) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.log: list[object] = []

        def __call__(self, logits: mx.array) -> mx.array:
            self.log.append("choose")
            return mx.array(len(self.log))

        def observe(self, token: mx.array) -> None:
            self.log.append(token.item())

    recorder = Recorder()
    tokens = decode(model, [1], model.make_cache(), recorder)
    taken = [next(tokens) for _ in range(3)]
    assert recorder.log == ["choose", taken[0], "choose", taken[1], "choose", taken[2], "choose"]


def test_a_constraint_has_accepted_exactly_the_tokens_yielded(model: ScriptedModel) -> None:
    class Evens:
        accepted: ClassVar[list[int]] = []

        def mask(self) -> mx.array:
            return mx.arange(model.args.vocab_size) % 2 == 0

        def accept(self, token: int) -> None:
            self.accepted.append(token)

        def rollback(self, count: int) -> None:
            del self.accepted[-count:]

    sampler = Sampler(SamplingParams(), model.args.vocab_size, Evens())
    said = []
    for ids in ([5, 6, 7], [8]):  # the second as after a thinking budget: one sampled token is dropped
        tokens = decode(model, ids, model.make_cache(), sampler)
        said += [next(tokens) for _ in range(4)]
        tokens.close()
    assert Evens.accepted == said
    assert all(token % 2 == 0 for token in said)
