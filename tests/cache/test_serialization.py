"""What was read is kept: on disk, for a later run, and in memory, for conversations that start alike."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS
from mlx_qwen3.cache.config import CacheConfig

import mlx.core as mx  # isort: skip
import pytest
from killed import run_until_killed
from tiny_checkpoints import CACHES, DENSE, random_model, write_checkpoint

from mlx_qwen3 import Engine, Session
from mlx_qwen3.cache.prefix_pool import PrefixPool
from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.cache.serialization import load_prompt_cache, save_prompt_cache
from mlx_qwen3.checkpoint.fingerprint import model_fingerprint
from mlx_qwen3.errors import CacheError
from mlx_qwen3.model.config import ModelConfig, RopeScaling
from mlx_qwen3.model.qwen3 import Model

MADE_WITH = {"model": "m", "quantization": "q", "template": "t", "rope": "r"}
GREEDY = {"temperature": 0.0, "max_tokens": 40}


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(DENSE)


def feed(model: Model, cache: PromptCache, ids: list[int]) -> int:
    """Feed what is new of the prompt `ids`; how many tokens that was."""
    rest = cache.begin(ids)
    model(mx.array([rest]), cache.layers)
    cache.extend(rest)
    return len(rest)


def following(model: Model, cache: PromptCache) -> mx.array:
    return model(mx.array([[6]]), [layer.copy() for layer in cache.layers])


@pytest.mark.parametrize("kind", CACHES)
def test_a_saved_cache_continues_where_it_was(model: Model, kind: str, tmp_path: Path) -> None:
    cache = PromptCache(model, CacheConfig(**CACHES[kind]))
    feed(model, cache, list(range(20)))
    cache.save(tmp_path / "a.safetensors", MADE_WITH)
    loaded = PromptCache.load(model, tmp_path / "a.safetensors", MADE_WITH, CacheConfig(**CACHES[kind]))
    assert (loaded.ids, loaded._skipped) == (cache.ids, cache._skipped)
    assert mx.array_equal(following(model, cache), following(model, loaded))
    longer = [*range(20), 50, 51]
    assert feed(model, loaded, longer) == feed(model, cache, longer) == 2
    assert mx.array_equal(following(model, cache), following(model, loaded))


def test_a_file_saved_with_another_fingerprint_is_refused_by_name(model: Model, tmp_path: Path) -> None:
    path, cache = tmp_path / "a.safetensors", PromptCache(model)
    feed(model, cache, [1, 2, 3])
    cache.save(path, MADE_WITH)
    for name in MADE_WITH:
        message = f"saved with another {name}; the conversation has to be prefilled"
        with pytest.raises(CacheError, match=message):
            PromptCache.load(model, path, {**MADE_WITH, name: "other"})
    with pytest.raises(CacheError, match="another cache"):
        PromptCache.load(model, path, MADE_WITH, CacheConfig(bits=8))


def test_files_that_cannot_be_used_are_refused(model: Model, tmp_path: Path) -> None:
    path, cache = tmp_path / "a.safetensors", PromptCache(model)
    with pytest.raises(CacheError, match="there is no saved cache"):
        PromptCache.load(model, path, MADE_WITH)
    feed(model, cache, [1, 2, 3])
    save_prompt_cache(path, cache.layers)
    with pytest.raises(CacheError, match="not the saved KV cache of a conversation"):
        PromptCache.load(model, path, MADE_WITH)
    cache.save(path, MADE_WITH)
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CacheError, match="damaged or cut off"):
            PromptCache.load(model, path, MADE_WITH)
    mx.save_safetensors(str(path), {"x": mx.ones(3)}, {"made": "elsewhere"})
    with pytest.raises(CacheError):
        load_prompt_cache(path)
    with pytest.raises(CacheError, match="cannot be written"):
        save_prompt_cache(tmp_path / "a.safetensors" / "b", cache.layers)
    with pytest.raises(CacheError, match="cannot be saved"):
        save_prompt_cache(path, [object()])  # type: ignore[list-item]


def test_a_killed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    code = (
        "import sys, mlx_qwen3, mlx.core as mx\n"
        "from mlx_qwen3.cache.serialization import *\n"
        "def save(value):\n"
        "    cache = KVCache()\n"
        "    rows = mx.full((1, 8, 2000, 64), value)\n"
        "    cache.update_and_fetch(rows, rows)\n"
        "    save_prompt_cache(sys.argv[1], [cache, cache, cache])\n"
        "save(1.0)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for value in (1.0, 2.0): save(value)\n"
    )
    for wait in (0.02, 0.07):
        run_until_killed(code, path, wait)
        cache, _ = load_prompt_cache(path)
        seen = {float(array.max().item()) for layer in cache for array in layer.state[:2]}
        assert len(seen) == 1, "two contents in one file"


def test_fingerprints_tell_models_templates_and_ropes_apart(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", DENSE)
    config = ModelConfig.from_dict(DENSE)
    one = model_fingerprint(tmp_path / "a", config, "template")
    assert model_fingerprint(tmp_path / "a", config, "template") == one
    scaled_config = replace(config, rope_scaling=RopeScaling(2.0, 32768))
    scaled = model_fingerprint(tmp_path / "a", scaled_config, "template")
    assert {name for name in one if one[name] != scaled[name]} == {"rope"}
    assert model_fingerprint(tmp_path / "a", config, "other")["template"] != one["template"]
    tensors = write_checkpoint(tmp_path / "b", DENSE)
    tensors["model.layers.1.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"] * 1.001
    mx.save_safetensors(str(tmp_path / "b" / "model.safetensors"), tensors, {"format": "pt"})
    tuned = model_fingerprint(tmp_path / "b", config, "template")
    assert {name for name in one if one[name] != tuned[name]} == {"model"}


SYSTEM = "You add numbers. " * 30


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("demo") as engine:
        yield engine


def talk(engine: Engine, text: str, system: str = SYSTEM) -> tuple[Session, Any]:
    session = engine.session(system=system, sampling=GREEDY, thinking=False)
    return session, session.ask(text)


def test_a_session_resumes_with_its_cache(engine: Engine, tmp_path: Path) -> None:
    first, _ = talk(engine, "what is 12+30?")
    with pytest.raises(CacheError, match="no cache yet"):
        engine.session().save_cache(tmp_path / "c.safetensors")
    first.save(tmp_path / "a.json")
    first.save_cache(tmp_path / "a.safetensors")
    held = first.tokens
    expected = first.ask("and 5 more?")
    with Engine("demo") as later:
        resumed, anew = (Session.load(later, tmp_path / "a.json") for _ in range(2))
        resumed.load_cache(tmp_path / "a.safetensors")
        assert resumed.tokens == held
        reply = resumed.ask("and 5 more?")
        assert reply.answer == expected.answer
        assert reply.stats.cached_tokens == expected.stats.cached_tokens > 100
        del resumed
        assert anew.ask("and 5 more?").answer == expected.answer
    with Engine("demo", kv_bits=8) as other, pytest.raises(CacheError, match="another cache"):
        Session.load(other, tmp_path / "a.json").load_cache(tmp_path / "a.safetensors")


def test_a_grown_conversation_resumes_at_its_factor(engine: Engine, tmp_path: Path) -> None:
    def as_if_short(engine: Engine) -> Engine:
        engine.config = replace(engine.config, max_position_embeddings=128)
        engine.plan = replace(engine.plan, context=128, longest_context=512)
        return engine

    first, _ = talk(as_if_short(engine), "what is 12+30?")
    assert first.context > 128
    first.save(tmp_path / "a.json")
    first.save_cache(tmp_path / "a.safetensors")
    with Engine("demo") as later:
        resumed = Session.load(as_if_short(later), tmp_path / "a.json")
        resumed.load_cache(tmp_path / "a.safetensors")
        assert resumed.context == first.context
        assert resumed.ask("hello").stats.cached_tokens > 100


@pytest.mark.parametrize("options", [{}, {"kv_bits": 8}, {"max_kv_size": 1024}])
def test_a_long_system_prompt_is_prefilled_once(options: dict[str, int]) -> None:
    with Engine("demo", **options) as engine:
        engine.prefixes.limit = 10**9
        first, alone = talk(engine, "what is 12+30?")
        assert alone.stats.cached_tokens == 0
        second, reply = talk(engine, "what is 77+11?")
        assert reply.stats.cached_tokens > 100
        _, again = talk(engine, "what is 12+30?")
        assert again.answer == alone.answer
        assert first.ask("hello").stats.cached_tokens > 100
        with Engine("demo", **options) as other:
            assert talk(other, "what is 77+11?")[1].answer == reply.answer
        del first, second
        gc.collect()
        assert talk(engine, "hello")[1].stats.cached_tokens > 100  # ended, and kept
        assert talk(engine, "hello", "Be brief.")[1].stats.cached_tokens == 0


def test_caches_of_ended_conversations_are_dropped_beyond_the_limit(model: Model) -> None:
    ids = list(range(200))
    cache = PromptCache(model)
    feed(model, cache, ids)
    pool = PrefixPool(limit=cache.nbytes)
    pool.add(cache, None)
    assert pool.find([*ids, 1], "another rope") is None
    assert pool.find([*ids, 1], None, better_than=180) is None
    found = pool.find([*ids[:150], 1], None)
    assert found is not None
    assert found.ids == ids[:150]
    assert found.nbytes == cache.nbytes * 150 // cache.layers[0].keys.shape[2]
    other = PromptCache(model)
    feed(model, other, [7] * 100)
    pool.add(other, None)
    del cache
    gc.collect()
    assert pool.find([*ids, 1], None) is None
    assert pool.find([7] * 100, None) is not None
