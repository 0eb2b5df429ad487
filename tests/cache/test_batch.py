"""Caches of several sequences in one pass: each sequence reads and writes its own rows alone."""

from __future__ import annotations

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import pytest
from conftest import KINDS, build
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.model_cases import VOCAB

from mlx_qwen3.cache.batch import SequenceCaches, batched_layers
from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.model.qwen3 import Model

CACHES = {
    "full": {},
    "8 bits": {"bits": 8, "group_size": 32},
    "4 bits": {"bits": 4, "group_size": 32},
    "window": {"max_size": 12, "keep": 2},
    "window, 8 bits": {"max_size": 12, "keep": 2, "bits": 8, "group_size": 32},
}
ids = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9)
# A sequence: the kind of its cache, and what is fed to it in each pass.
sequences = st.lists(
    st.tuples(st.sampled_from(list(CACHES)), st.lists(ids, min_size=3, max_size=3)), min_size=1, max_size=4
)


@pytest.fixture(scope="module", params=["dense", "moe"])
def model(request: pytest.FixtureRequest) -> Model:
    return build(KINDS[request.param])


@settings(max_examples=25, deadline=None)
@given(sequences=sequences)
def test_a_pass_over_many_is_the_passes_over_each(
    model: Model, sequences: list[tuple[str, list[list[int]]]]
) -> None:
    """Whatever kinds of caches come together, and however many tokens each feeds."""
    alone = [make_prompt_cache(model, **CACHES[kind]) for kind, _ in sequences]
    together = [make_prompt_cache(model, **CACHES[kind]) for kind, _ in sequences]
    for number in range(3):
        fed = [chunks[number] for _, chunks in sequences]
        expected = [model(mx.array([chunk]), cache)[0] for chunk, cache in zip(fed, alone, strict=True)]
        flat = mx.array([token for chunk in fed for token in chunk])[:, None]
        logits = model(flat, batched_layers(together, [len(chunk) for chunk in fed]))[:, 0]
        # A difference in the last bit may round a value of a quantized cache to the next step.
        for (kind, _), own, rows in zip(sequences, expected, _split(logits, fed), strict=True):
            assert mx.allclose(rows, own, atol=0.5 if "bits" in kind else 1e-4), "logits of the same tokens"
    for mine, theirs in zip(together, alone, strict=True):
        for layer, other in zip(mine, theirs, strict=True):
            assert layer.offset == other.offset


def _split(logits: mx.array, fed: list[list[int]]) -> list[mx.array]:
    ends = [sum(map(len, fed[: number + 1])) for number in range(len(fed) - 1)]
    return list(mx.split(logits, ends))


def test_positions_are_each_sequences_own() -> None:
    first, second = KVCache(), KVCache()
    first.update_and_fetch(mx.zeros((1, 1, 5, 4)), mx.zeros((1, 1, 5, 4)))
    caches = SequenceCaches([first, second], [1, 3])
    assert caches.offset.tolist() == [5, 0, 1, 2]


def test_layers_that_agree_share_their_positions() -> None:
    layers = batched_layers([[KVCache(), KVCache()]], [2])
    assert layers[0].offset is layers[1].offset
