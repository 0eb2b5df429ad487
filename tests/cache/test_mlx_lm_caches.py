"""mlx-lm's functions run with our model and each of our caches; a PromptCache follows changing prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS
from mlx_qwen3.cache.config import CacheConfig

import mlx.core as mx  # isort: skip
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from scripted import write_byte_tokenizer
from tiny_checkpoints import CACHES, DENSE, random_model

from mlx_qwen3.cache import serialization
from mlx_qwen3.cache.kv import KVCache, QuantizedKVCache
from mlx_qwen3.cache.prompt_cache import PromptCache, make_prompt_cache
from mlx_qwen3.cache.snapshots import SnapshotBudget
from mlx_qwen3.cache.window.rotating import QuantizedRotatingKVCache, RotatingKVCache
from mlx_qwen3.errors import CacheError
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(DENSE)


def greedy(model: Model, cache: Any, ids: list[int], count: int) -> list[int]:
    tokens: list[int] = []
    for _ in range(count):
        tokens.append(int(mx.argmax(model(mx.array([ids]), cache)[0, -1]).item()))
        ids = tokens[-1:]
    return tokens


@pytest.mark.parametrize("kind", CACHES)
def test_mlx_lm_generates_the_same_tokens(model: Model, kind: str) -> None:
    from mlx_lm.generate import generate_step

    cache = make_prompt_cache(model, **CACHES[kind])
    theirs = [
        int(token) for token, _ in generate_step(mx.array(PROMPT), model, prompt_cache=cache, max_tokens=15)
    ]
    assert theirs == greedy(model, make_prompt_cache(model, **CACHES[kind]), PROMPT, 15)


@pytest.mark.parametrize("kind", ["full", "rotating"])
def test_mlx_lm_quantizes_our_cache_midway(model: Model, kind: str) -> None:
    from mlx_lm.generate import generate_step

    cache = make_prompt_cache(model, **CACHES[kind])
    steps = generate_step(
        mx.array(PROMPT),
        model,
        prompt_cache=cache,
        max_tokens=15,
        kv_bits=8,
        kv_group_size=32,
        quantized_kv_start=25,
    )
    assert len(list(steps)) == 15
    assert all(isinstance(layer, QuantizedKVCache | QuantizedRotatingKVCache) for layer in cache)


def test_mlx_lms_own_quantized_cache_runs_in_our_model(model: Model) -> None:
    from mlx_lm.models.cache import QuantizedKVCache as TheirQuantizedKVCache

    theirs = [TheirQuantizedKVCache(32, 8) for _ in model.layers]
    ours = make_prompt_cache(model, bits=8, group_size=32)
    for ids in (PROMPT, [7], [8]):
        difference = model(mx.array([ids]), theirs) - model(mx.array([ids]), ours)
        assert mx.abs(difference).max().item() < 1e-4


@pytest.mark.parametrize("kind", ["full", "quantized", "rotating"])
def test_mlx_lm_saves_our_cache_and_loads_it_as_its_own(model: Model, kind: str, tmp_path: Path) -> None:
    from mlx_lm.models.cache import load_prompt_cache, save_prompt_cache

    cache: Any = make_prompt_cache(model, **CACHES[kind])
    for layer in cache:
        layer.rotation = None  # mlx-lm leaves the first tokens where they were
    model(mx.array([PROMPT]), cache)
    save_prompt_cache(str(tmp_path / "cache.safetensors"), cache)
    loaded = load_prompt_cache(str(tmp_path / "cache.safetensors"))
    ours = [type(layer).from_state(theirs.state) for layer, theirs in zip(cache, loaded, strict=True)]
    for token in range(16):
        logits = [model(mx.array([[token]]), each) for each in (cache, loaded, ours)]
        assert mx.abs(logits[0] - logits[1]).max().item() < 1e-4
        assert mx.abs(logits[0] - logits[2]).max().item() < 1e-4


@pytest.mark.parametrize("kind", CACHES)
def test_stream_generate_generates_our_tokens(model: Model, kind: str, tmp_path: Path) -> None:
    from mlx_lm import stream_generate
    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from transformers import PreTrainedTokenizerFast

    folder = write_byte_tokenizer(tmp_path)
    plain = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|im_end|>")
    cache = make_prompt_cache(model, **CACHES[kind])
    responses = stream_generate(model, TokenizerWrapper(plain), PROMPT, max_tokens=15, prompt_cache=cache)
    theirs = [response.token for response in responses]
    ours = greedy(model, make_prompt_cache(model, **CACHES[kind]), PROMPT, 15)
    assert theirs == ours[: len(theirs)]
    assert len(theirs) == 15 or theirs[-1] == plain.eos_token_id


@pytest.mark.parametrize("kind", CACHES)
def test_our_cache_saved_by_mlx_lm_loads_here(model: Model, kind: str, tmp_path: Path) -> None:
    from mlx_lm.models.cache import save_prompt_cache

    cache: Any = make_prompt_cache(model, **CACHES[kind])
    model(mx.array([PROMPT]), cache)
    save_prompt_cache(str(tmp_path / "cache.safetensors"), cache)
    loaded, _ = serialization.load_prompt_cache(tmp_path / "cache.safetensors")
    for layer, ours in zip(loaded, cache, strict=True):
        layer.rotation = getattr(ours, "rotation", None)
    logits = [model(mx.array([[5]]), each) for each in (cache, loaded)]
    assert mx.abs(logits[0] - logits[1]).max().item() < 1e-4


@pytest.mark.parametrize("kind", ["full", "quantized", "rotating"])
def test_saved_caches_load_in_either_program(model: Model, kind: str, tmp_path: Path) -> None:
    from mlx_lm.models.cache import load_prompt_cache, save_prompt_cache

    cache: Any = make_prompt_cache(model, **CACHES[kind])
    for layer in cache:
        layer.rotation = None
    model(mx.array([PROMPT]), cache)
    serialization.save_prompt_cache(tmp_path / "ours.safetensors", cache, {"model": "tiny"})
    theirs, metadata = load_prompt_cache(str(tmp_path / "ours.safetensors"), return_metadata=True)
    assert metadata == {"model": "tiny"}
    save_prompt_cache(str(tmp_path / "theirs.safetensors"), theirs, {"by": "mlx-lm"})
    ours, metadata = serialization.load_prompt_cache(tmp_path / "theirs.safetensors")
    assert metadata == {"by": "mlx-lm"}
    logits = [model(mx.array([[5]]), each) for each in (cache, theirs, ours)]
    assert mx.abs(logits[0] - logits[1]).max().item() < 1e-4
    assert mx.abs(logits[0] - logits[2]).max().item() < 1e-4


@pytest.mark.parametrize("kind", CACHES)
def test_mlx_lm_trims_our_cache_unless_tokens_were_dropped(model: Model, kind: str) -> None:
    from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

    cache: Any = make_prompt_cache(model, **CACHES[kind])
    model(mx.array([PROMPT[:9]]), cache)
    assert trim_prompt_cache(cache, 3) == 3
    assert cache[0].offset == 6
    model(mx.array([PROMPT]), cache)
    assert can_trim_prompt_cache(cache) == ("max_size" not in CACHES[kind])


@pytest.mark.parametrize("kind", CACHES)
def test_a_lora_step_trains_on_top_of_a_filled_cache(kind: str) -> None:
    from mlx_lm.tuner.utils import linear_to_lora_layers

    tuned = Model(ModelConfig.from_dict(DENSE))
    tuned.freeze()
    linear_to_lora_layers(tuned, 2, {"rank": 4, "scale": 1.0, "dropout": 0.0})
    cache: Any = make_prompt_cache(tuned, **CACHES[kind])
    tuned(mx.array([PROMPT]), cache)

    def loss(model: Model) -> mx.array:
        logits = model(mx.array([[5]]), [layer.copy() for layer in cache])
        return nn.losses.cross_entropy(logits[0, -1], mx.array(7))

    _, gradients = nn.value_and_grad(tuned, loss)(tuned)
    assert any(mx.abs(gradient).max().item() > 0 for _, gradient in tree_flatten(gradients))


def test_each_config_makes_its_class_and_refuses_impossible_values(model: Model) -> None:
    kinds = [type(make_prompt_cache(model, **options)[0]) for options in CACHES.values()]
    assert kinds == [KVCache, QuantizedKVCache, RotatingKVCache, QuantizedRotatingKVCache]
    with pytest.raises(CacheError, match="4 or 8 bits"):
        make_prompt_cache(model, bits=3)
    with pytest.raises(CacheError, match="keep fewer"):
        make_prompt_cache(model, max_size=4, keep=4)
    with pytest.raises(CacheError, match="does not divide heads of 32"):
        model(mx.array([[1]]), make_prompt_cache(model, bits=4, group_size=64))


def feed(model: Model, cache: PromptCache, ids: list[int]) -> list[int]:
    pending = cache.begin(ids)
    model(mx.array([pending]), cache.layers)
    cache.extend(pending)
    return pending


@pytest.mark.parametrize("kind", ["rotating", "rotating quantized"])
def test_a_changed_prompt_is_fed_again_but_no_more_than_the_window_holds(model: Model, kind: str) -> None:
    cache = PromptCache(model, CacheConfig(**CACHES[kind]))
    assert feed(model, cache, PROMPT) == [*PROMPT[:2], *PROMPT[-10:]]
    longer = [*PROMPT, 11, 12]
    assert feed(model, cache, longer) == [11, 12]  # only more: the window goes on
    changed = [*PROMPT[:15], 13, 14, 15]
    assert feed(model, cache, changed) == changed[-10:]  # the first two are still held
    fresh = PromptCache(model, CacheConfig(**CACHES[kind]))
    feed(model, fresh, changed)
    following = [model(mx.array([[6]]), held.layers) for held in (cache, fresh)]
    assert mx.abs(following[0] - following[1]).max().item() < 1e-4
    other = [99, *changed]
    assert feed(model, cache, other) == [*other[:2], *other[-10:]]
    assert feed(model, cache, [1, 2, 3]) == [1, 2, 3]
    assert feed(model, cache, [1, 2, 3, 4]) == [4]
    assert feed(model, cache, [1, 2, 9, 4]) == [9, 4]


@pytest.mark.parametrize("kind", ["rotating", "rotating quantized"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_full_window_rolls_back_to_the_end_of_a_prompt(model: Model, kind: str, steps: int) -> None:
    ids, prompts = PROMPT, [PROMPT, [*PROMPT, 90, 91, 92, 93, 94, 95, 96, 97, 98]]
    cache, twin = (PromptCache(model, CacheConfig(**CACHES[kind])) for _ in range(2))
    for prompt in prompts:  # the second goes on from the first's end, not from what was answered
        for held in (cache, twin):
            assert len(feed(model, held, prompt)) <= 12
        cache.take_snapshot()
        ids = prompt
        for step in range(steps):
            for token in range(20 + step, 27 + step):
                ids = [*ids, token]
                assert feed(model, cache, ids) == [token]
            cache.take_snapshot()  # the same prompt goes on, so the snapshot stays
        assert cache.ids == [*twin.ids, *ids[len(prompt) :]]
        assert cache.reusable([*prompt, 1]) == len(twin.ids)
        fork = cache.fork([*prompt, 1])
        assert fork.ids == twin.ids
    assert feed(model, cache, [*prompts[1], 5]) == feed(model, twin, [*prompts[1], 5]) == [5]
    following = [model(mx.array([[6]]), held.layers) for held in (cache, twin)]
    assert mx.abs(following[0] - following[1]).max().item() < 1e-5


def test_snapshots_of_many_caches_stay_within_their_budget(model: Model) -> None:
    size = PromptCache(model, CacheConfig(**CACHES["rotating"]))
    feed(model, size, PROMPT)
    budget = SnapshotBudget(2 * size.nbytes)
    caches = [PromptCache(model, CacheConfig(**CACHES["rotating"]), snapshots=budget) for _ in range(4)]
    for cache in caches:
        feed(model, cache, PROMPT)
        cache.take_snapshot()
    assert [bool(cache.snapshot_nbytes) for cache in caches] == [False, False, True, True]
    del caches[2], cache
    caches[0].take_snapshot()
    assert [bool(cache.snapshot_nbytes) for cache in caches] == [True, False, True]
    none = PromptCache(model, CacheConfig(**CACHES["rotating"]), snapshots=SnapshotBudget(size.nbytes - 1))
    feed(model, none, PROMPT)
    none.take_snapshot()
    assert none.snapshot_nbytes == 0
    full = PromptCache(model)
    feed(model, full, PROMPT)
    full.take_snapshot()
    assert full.snapshot_nbytes == 0


def test_a_snapshot_after_the_cut_is_dropped(model: Model) -> None:
    cache = PromptCache(model, CacheConfig(**CACHES["rotating"]))
    feed(model, cache, PROMPT)
    cache.take_snapshot()
    assert cache.snapshot_nbytes == cache.nbytes
    feed(model, cache, [*PROMPT[:10], 50, 51])
    assert cache.snapshot_nbytes == 0


def test_a_prompt_that_changes_among_skipped_ids_keeps_the_first_tokens_only(model: Model) -> None:
    cache = PromptCache(model, CacheConfig(max_size=12, keep=2))
    feed(model, cache, PROMPT)  # 2 first, 8 skipped, 10 last
    changed = [*PROMPT[:9], 50, 51]
    assert feed(model, cache, changed) == changed[2:]
    fresh = PromptCache(model, CacheConfig(max_size=12, keep=2))
    feed(model, fresh, changed)
    following = [model(mx.array([[6]]), held.layers) for held in (cache, fresh)]
    assert mx.abs(following[0] - following[1]).max().item() < 1e-4


def test_mlx_lms_window_larger_by_a_chunk_continues_in_ours(model: Model) -> None:
    from mlx_lm.models.cache import RotatingKVCache as TheirRotatingKVCache

    theirs: Any = [TheirRotatingKVCache(12, keep=2) for _ in model.layers]
    model(mx.array([PROMPT[:7]]), theirs)
    model(mx.array([PROMPT]), theirs)
    assert theirs[0].keys.shape[2] > 12
    ours = [RotatingKVCache.from_state(layer.state) for layer in theirs]
    for token in range(16):
        difference = model(mx.array([[token]]), theirs) - model(mx.array([[token]]), ours)
        assert mx.abs(difference).max().item() < 1e-4


def test_the_state_of_another_class_is_refused() -> None:
    state = RotatingKVCache(12, 2).state
    with pytest.raises(CacheError, match="not a QuantizedRotatingKVCache's"):
        QuantizedRotatingKVCache.from_state(state)
    with pytest.raises(CacheError, match="not a RotatingKVCache's"):
        RotatingKVCache.from_state(QuantizedRotatingKVCache(12, 2).state)
