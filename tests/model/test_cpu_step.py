"""Whole passes by kernels: the numbers of MLX's own modules, with every kind of cache and batch."""

from __future__ import annotations

import gc
from typing import Any

import mlx.core as mx
import pytest
from model.test_prepare import SHAPES, difference, plain_fp32, stored
from parity.model_cases import Raw

from mlx_qwen3.backend.switches import has_kernels
from mlx_qwen3.cache.batch import batched_layers
from mlx_qwen3.model import prepare
from mlx_qwen3.model.cpu.many_rows import ManyRows
from mlx_qwen3.model.qwen3 import Model

pytestmark = pytest.mark.skipif(not has_kernels(), reason="kernels are for Linux CPUs")


def ids_of(length: int) -> mx.array:
    return mx.array([[(7 * i + length) % 96 for i in range(length)]])


def pair(shape: str, storage: str) -> tuple[Model, Model]:
    model = prepare.prepare(stored(SHAPES[shape], storage))
    assert isinstance(model, Model)
    assert model.computes_now
    return plain_fp32(SHAPES[shape], storage), model


@pytest.mark.parametrize("cache", [{}, {"max_size": 16}, {"bits": 8, "group_size": 32}], ids=str)
@pytest.mark.parametrize("storage", ["affine-4", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_passes_of_any_length_are_those_of_mlx(shape: str, storage: str, cache: dict[str, Any]) -> None:
    reference, model = pair(shape, storage)
    theirs, ours = reference.make_cache(**cache), model.make_cache(**cache)
    for length in (5, 1, 1, 3, 30, 1, 17, 18, 1):
        expected, logits = reference(ids_of(length), theirs), model(ids_of(length), ours)
        assert difference(logits, expected) <= (2e-2 if cache.get("bits") else 1e-4)
        assert ours[0].offset == theirs[0].offset
        assert model.computes_now  # or the kernels had been left for MLX's modules


@pytest.mark.parametrize("shape", ["dense", "moe"])
def test_sequences_that_share_a_pass_see_their_own_rows(shape: str) -> None:
    reference, model = pair(shape, "affine-4")
    theirs = [reference.make_cache() for _ in range(3)]
    ours = [model.make_cache() for _ in range(3)]
    for number in range(3):
        reference(ids_of(4 + number), theirs[number])
        model(ids_of(4 + number), ours[number])
    for lengths in ([1, 1, 1], [1, 5, 1], [20, 1, 3], [1, 40, 1], [17, 30, 2], [12, 1, 9]):
        ids = mx.concatenate([ids_of(length)[0] for length in lengths])[:, None]
        expected = reference(ids, batched_layers(theirs, lengths))
        logits = model(ids, batched_layers(ours, lengths))
        assert difference(logits, expected) <= 1e-4


@pytest.mark.parametrize("shape", ["dense", "moe"])
def test_a_token_is_the_same_to_the_bit_beside_a_prompt(shape: str) -> None:
    _, model = pair(shape, "affine-4")
    alone, beside, prompt = (model.make_cache() for _ in range(3))
    for cache in (alone, beside):
        model(ids_of(9), cache)
    for _ in range(3):
        expected = model(ids_of(1), alone)[0, -1]
        both = mx.concatenate([ids_of(40)[0], ids_of(1)[0]])[:, None]
        assert mx.array_equal(model(both, batched_layers([prompt, beside], [40, 1]))[-1, 0], expected)


def test_a_copy_of_a_cache_keeps_its_rows() -> None:
    _, model = pair("dense", "affine-4")
    cache = model.make_cache()
    model(ids_of(6), cache)
    copies = [layer.copy() for layer in cache]
    expected = model(ids_of(2), [layer.copy() for layer in cache])
    for layer in cache:
        layer.trim(3)
    model(ids_of(5), cache)
    assert difference(model(ids_of(2), copies), expected) <= 1e-6


WITHOUT_NORM = {**SHAPES["moe"], "norm_topk_prob": False}
MIXED = {**SHAPES["moe"], "num_hidden_layers": 3, "mlp_only_layers": [1]}
DECODED: list[tuple[Raw, dict[str, Any]]] = [
    (WITHOUT_NORM, {}),
    (MIXED, {}),
    (MIXED, {"max_size": 24}),
    (MIXED, {"max_size": 24, "keep": 0}),
]


@pytest.mark.parametrize(("shape", "cache"), DECODED, ids=["not normed", "full", "window", "no first keys"])
def test_a_token_is_one_program(shape: Raw, cache: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With full caches and windows, before and after the window is full and its first keys were shifted."""
    storage = "bf16" if cache else "affine-4"
    reference, model = plain_fp32(shape, storage), prepare.prepare(stored(shape, storage))
    theirs, ours = reference.make_cache(**cache), model.make_cache(**cache)
    for length in (20, 244) if cache else (20,):
        model(ids_of(length), ours)
        reference(ids_of(length), theirs)
        monkeypatch.setattr(ManyRows, "hidden", None)
        for token in range(12):
            ids = ids_of(1) + token
            expected, logits = reference(ids, theirs), model(ids, ours)
            assert difference(logits, expected) <= 1e-4
            assert mx.argmax(logits) == mx.argmax(expected)
            assert ours[0].offset == theirs[0].offset
        assert model.computes_now
        monkeypatch.undo()


def test_a_draft_in_a_window_can_be_rolled_back() -> None:
    reference, model = pair("moe", "affine-4")
    caches = reference.make_cache(max_size=16), model.make_cache(max_size=16)
    for cache, of in zip(caches, (reference, model), strict=True):
        of(ids_of(30), cache)
        for layer in cache:
            layer.keep_for_rollback(4)
        for length in (1, 1, 1):
            of(ids_of(length), cache)
        assert [layer.trim(2) for layer in cache] == [2, 2]
    for _ in range(3):
        assert difference(model(ids_of(1), caches[1]), reference(ids_of(1), caches[0])) <= 1e-4


def test_caches_grow_one_layer_at_a_time() -> None:
    layers = 8
    model = prepare.prepare(stored({**SHAPES["dense"], "num_hidden_layers": layers}, "affine-4"))
    cache = model.make_cache()
    model(ids_of(cache[0].step), cache)
    gc.collect()  # models of other tests, whose memory would be counted
    mx.clear_cache()
    before, old = mx.get_active_memory(), cache[0].nbytes
    mx.reset_peak_memory()
    logits = model(ids_of(1), cache)
    model(ids_of(1), cache)  # which reads all of them
    new = cache[0].nbytes
    assert new == 2 * old
    # Beyond what the grown caches take: one layer's, old and new, and a few rows.
    assert mx.get_peak_memory() - before <= layers * (new - old) + 2 * new + 4 * logits.nbytes
    assert mx.get_cache_memory() <= 2 * new  # the old ones are not kept for later


def test_hidden_states_lead_to_the_logits() -> None:
    _, model = pair("tied", "affine-4")
    for length in (3, 40):
        hidden = model.hidden_states(ids_of(length), model.make_cache())
        logits = model(ids_of(length), model.make_cache())
        assert difference(model.output_head(hidden), logits) <= 1e-5


def test_new_weights_end_the_kernels_pass() -> None:
    reference, model = pair("dense", "bf16")
    weight = mx.random.normal(model.layers[0].mlp.up_proj.weight.shape).astype(mx.bfloat16)
    model.layers[0].mlp.up_proj.weight = weight
    reference.layers[0].mlp.up_proj.weight = weight.astype(mx.float32)
    logits = model(ids_of(5), model.make_cache())
    assert difference(logits, reference(ids_of(5), reference.make_cache())) <= 1e-4
    assert not model.computes_now
