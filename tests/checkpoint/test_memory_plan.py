"""The memory plan: what fits, what is refused, and what is suggested instead."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import DENSE, write_checkpoint

from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.checkpoint import FAMILY, load_model, memory
from mlx_qwen3.checkpoint import load as load_module
from mlx_qwen3.checkpoint.load import load
from mlx_qwen3.checkpoint.memory import cache_nbytes
from mlx_qwen3.checkpoint.memory_plan import MemoryRequest, family_request, members_that_fit, plan_memory
from mlx_qwen3.errors import InsufficientMemoryError, Suggestion
from mlx_qwen3.generation import prefill
from mlx_qwen3.model import prepare
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

GB = 10**9
MAC_16GB = int(11.8 * GB)


@pytest.fixture
def on_metal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes as they are on a GPU: bf16, large chunks."""
    for module in (prepare, memory):
        monkeypatch.setattr(module, "is_cpu", lambda: False)


def request(name: str, **options: object) -> MemoryRequest:
    member = FAMILY[name]
    return MemoryRequest(name, member.config, member.num_bytes, **options)  # type: ignore[arg-type]


def refusal(asked: MemoryRequest, available: int) -> InsufficientMemoryError:
    with pytest.raises(InsufficientMemoryError) as raised:
        plan_memory(asked, available)
    return raised.value


def test_a_cache_of_14b_takes_160_kib_a_token() -> None:
    config = FAMILY["14b"].config
    for bits, per_value in ((None, 16), (8, 8.5), (4, 4.5)):
        cache_config = CacheConfig(max_size=1024, bits=bits)
        assert cache_nbytes(config, cache_config, 0, 2) == 1024 * 160 * 1024 * per_value / 16


def test_what_does_not_fit_is_refused_with_suggestions_that_do(on_metal: None) -> None:
    error = refusal(request("14b", context=40960), MAC_16GB)
    needs = r"14b with a context of 40,960 tokens needs 16\.\d GB of memory, and 11\.8 GB can be had"
    assert re.fullmatch(needs, error.problem)
    quantized, shorter, smaller = error.suggestions
    assert quantized == {"kv_bits": 4}
    assert smaller == {"model": "8b"}
    context = shorter["context"]
    assert isinstance(context, int)
    assert 12_000 < context < 24_000
    assert str(error).endswith(f"; try kv_bits=4, context={context} or model='8b'")
    assert plan_memory(request("14b", context=context), MAC_16GB).context == context
    plan_memory(request("14b", context=40960, cache_config=CacheConfig(bits=4)), MAC_16GB)
    plan_memory(request("8b", context=40960, cache_config=CacheConfig(bits=8)), MAC_16GB)


def test_without_a_context_asked_for_the_context_is_what_fits(on_metal: None) -> None:
    plan = plan_memory(request("14b"), MAC_16GB)
    assert 12_000 < plan.context == plan.longest_context < 24_000
    assert plan.estimate.total <= MAC_16GB
    large = plan_memory(request("14b"), 64 * GB)
    assert (large.context, large.longest_context) == (40_960, 131_072)
    window = plan_memory(request("14b", cache_config=CacheConfig(max_size=4096)), MAC_16GB)
    assert window.context == 40_960


def test_weights_that_do_not_fit_leave_a_smaller_model(on_metal: None) -> None:
    error = refusal(request("32b"), MAC_16GB)
    assert error.suggestions == ({"model": "14b"},)
    assert str(error).endswith("can be had; try model='14b'")
    assert "close other programs" in str(refusal(request("0.6b"), GB // 10))
    window = refusal(request("14b", cache_config=CacheConfig(max_size=32768)), MAC_16GB)
    assert "a window of 32,768" in window.problem
    assert {"max_kv_size": 8192} in window.suggestions


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(FAMILY)),
    context=st.one_of(st.none(), st.integers(1, 131_072)),
    bits=st.sampled_from([None, 8, 4]),
    available=st.integers(GB // 10, 200 * GB),
)
def test_a_plan_never_exceeds_the_available_memory_and_suggestions_fit(
    name: str, context: int | None, bits: int | None, available: int
) -> None:
    cache_config = CacheConfig(bits=bits)
    asked = replace(family_request(FAMILY[name], cache_config), context=context)
    try:
        plan = plan_memory(asked, available)
    except InsufficientMemoryError as error:
        assert not asked.fits(context or 2048, available)
        for suggestion in error.suggestions:
            assert suggestion.keys() <= {"kv_bits", "context", "model"}
            plan_memory(changed(asked, suggestion), available)
        return
    assert plan.estimate.total <= available
    assert plan.context <= plan.longest_context
    assert asked.estimate(plan.longest_context).total <= available


def changed(asked: MemoryRequest, suggestion: Suggestion) -> MemoryRequest:
    """The request with a suggestion's arguments in place of its own."""
    arguments: dict[str, Any] = dict(suggestion)
    cache_config = replace(asked.cache_config, bits=arguments.get("kv_bits", asked.cache_config.bits))
    if "model" in arguments:
        asked = replace(family_request(FAMILY[arguments["model"]]), context=asked.context)
    return replace(asked, cache_config=cache_config, context=arguments.get("context", asked.context))


def test_the_chunks_planned_for_are_those_prefill_comes_to() -> None:
    sizes = prefill.AdaptiveChunkSize()
    assert sizes.size == memory.CPU_CHUNK
    for _ in range(10):
        sizes.record(sizes.size, seconds=0.01)
    assert sizes.size == memory.GPU_CHUNK


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("max_size", [None, 100])
@pytest.mark.parametrize("tokens", [5, 700])
def test_the_caches_size_is_exact(bits: int | None, max_size: int | None, tokens: int) -> None:
    model = Model(ModelConfig.from_dict(DENSE))
    cache = make_prompt_cache(model, max_size=max_size, bits=bits, group_size=32)
    for start in range(0, tokens, 173):
        model(mx.zeros((1, min(173, tokens - start)), mx.int32), cache)
    cache_config = CacheConfig(max_size=max_size, bits=bits, group_size=32)
    assert sum(layer.nbytes for layer in cache) == cache_nbytes(model.args, cache_config, tokens, 4)


def test_a_model_that_does_not_fit_is_refused_before_a_weight_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path, DENSE, mx.bfloat16)
    loaded = load(tmp_path, context=4096)
    assert loaded.plan.context == loaded.plan.longest_context == 4096
    weights = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert loaded.plan.estimate.weights == pytest.approx(weights, rel=0.05)
    monkeypatch.setattr(load_module, "_load_weights", lambda *_: pytest.fail("weights were read"))
    monkeypatch.setenv("MLX_QWEN3_MEMORY", "30MB")
    with pytest.raises(InsufficientMemoryError, match=r"131,072 tokens needs .* of memory"):
        load_model(tmp_path, context=131_072)


def test_what_fits_this_machine_is_offered_smallest_first(on_metal: None) -> None:
    assert [member.name for member in members_that_fit(MAC_16GB)] == ["0.6b", "1.7b", "4b", "8b", "14b"]


@pytest.mark.cpu_only(reason="a GPU plans larger chunks")
@pytest.mark.parametrize("bits", [None, 8])
def test_the_estimate_is_within_a_tenth_of_what_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int | None
) -> None:
    monkeypatch.setattr(memory, "CPU_CHUNK", 32)
    tokens, rows = 4096, mx.zeros((1, 4, 254, 64))
    shape = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "num_hidden_layers": 8}
    write_checkpoint(tmp_path, {**DENSE, **shape}, mx.bfloat16)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    loaded = load(tmp_path, tokens, CacheConfig(bits=bits))
    cache = make_prompt_cache(loaded.model, bits=bits)
    for layer in cache * 16:  # a long prompt, all but its last chunks
        layer.update_and_fetch(rows, rows)
        mx.eval(layer.state)
    for _ in prefill.prefill(loaded.model, [1] * 31, cache, chunk_size=32):
        pass
    mx.eval(loaded.model(mx.array([[1]]), cache))
    taken = mx.get_peak_memory() - before
    assert loaded.plan.estimate.total == pytest.approx(taken, rel=0.1)
