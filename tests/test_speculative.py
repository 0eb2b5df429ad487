"""Speculation says what plain decoding says, and leaves caches as plain decoding does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import pytest
from mlx.utils import tree_map
from tiny_checkpoints import DENSE

from mlx_qwen3.cache.prompt import make_prompt_cache
from mlx_qwen3.config import ModelConfig
from mlx_qwen3.decode import decode, prefill
from mlx_qwen3.drafting import Drafter, ModelDrafter, TextDrafter
from mlx_qwen3.model.qwen3 import Model
from mlx_qwen3.pace import Pace
from mlx_qwen3.sampling import Sampler, SamplingParams
from mlx_qwen3.speculative import Speculation

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
    mx.random.seed(0)
    model = Model(ModelConfig.from_dict(DENSE))
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
    drafter = TextDrafter(shortest=2) if kind == "text" else ModelDrafter(small, **options)
    drafter.pace = Lengths(lengths)
    return drafter


def feed(model: Model, cache: list[Any], drafter: Drafter | None = None) -> list[int]:
    for _ in prefill(model, PROMPT[:-1], cache):
        pass
    for _ in drafter.begin(PROMPT[:-1]) if drafter else ():
        pass
    return PROMPT[-1:]


def plain(model: Model, params: SamplingParams, count: int, **options: Any) -> list[int]:
    cache = make_prompt_cache(model, **options)
    tokens = decode(model, feed(model, cache), cache, Sampler(params, 300))
    return [next(tokens) for _ in range(count)]


@pytest.mark.parametrize("kind", ["text", "model"])
@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize("cache_kind", CACHES)
def test_the_same_tokens_as_without(
    model: Model, small: Model, cache_kind: str, params: SamplingParams, kind: str
) -> None:
    options = CACHES[cache_kind]
    expected = plain(model, params, 60, **options)
    cache, drafter = make_prompt_cache(model, **options), make_drafter(kind, small, [4, 1, 0, 7], **options)
    speculation = Speculation(model, cache, Sampler(params, 300), drafter)
    tokens = speculation.decode(feed(model, cache, drafter))
    assert [next(tokens) for _ in range(60)] == expected
    tokens.close()
    assert all(layer.tokens == len(PROMPT) + 60 for layer in cache)
    if kind == "model":
        assert 0 < speculation.accepted < speculation.drafted
        assert speculation.passes < 55
