"""Caches against references that keep every token: any window, chunks, batch, bits and dtype."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from mlx_qwen3.cache.kv import KVCache, QuantizedKVCache
from mlx_qwen3.cache.rows import Layout, dequantize, layout_of, quantize
from mlx_qwen3.cache.serialization import load_prompt_cache, save_prompt_cache
from mlx_qwen3.cache.window.rotating import QuantizedRotatingKVCache, RotatingKVCache, to_rotating
from mlx_qwen3.model import attention_kernels as attend_module
from mlx_qwen3.model.attention_kernels import attend
from mlx_qwen3.model.config import RopeScaling
from mlx_qwen3.model.rope import RoPE, YarnRoPE

D, HEADS, KEY_HEADS = 32, 4, 2
ROPE = RoPE(D, 10000.0)
FORMATS = {mx.float32: 2e-5, mx.bfloat16: 8e-2}
quick = settings(max_examples=25, deadline=None)
chunkings = st.lists(st.integers(1, 13), min_size=1, max_size=12)


def random_rows(batch: int, length: int, seed: int, dtype: mx.Dtype = mx.float32) -> list[mx.array]:
    """Queries, keys and values of `length` tokens, none rotated yet."""
    keys = mx.random.split(mx.random.key(seed), 3)
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    return [
        mx.random.normal((batch, n, length, D), key=k).astype(dtype) for n, k in zip(heads, keys, strict=True)
    ]


def run(cache: Any, rows: list[mx.array], chunks: list[int], start: int = 0) -> mx.array:
    """Attention outputs of all tokens, fed to `cache` in chunks as the model feeds them."""
    outputs = []
    for length in chunks:
        q, k, v = (r[:, :, start : start + length] for r in rows)
        mask = cache.make_mask(length, return_array=False, window_size=None)
        q, k = ROPE(q, cache.offset), ROPE(k, cache.offset)
        outputs.append(attend(q, *cache.update_and_fetch(k, v), D**-0.5, mask))
        mx.eval(outputs)
        start += length
    return mx.concatenate(outputs, axis=2)


def reference(
    rows: list[mx.array],
    window: int,
    keep: int,
    moves: bool,
    store: Callable[[mx.array], mx.array] = lambda row: row,
) -> mx.array:
    """Attention outputs computed one token at a time, without a cache.

    moves: the first keys are shifted by strides of max(STRIDE, keep) positions as the window moves. store:
    the rounding that rows get as they are stored.
    """
    queries, keys, values = rows
    rotated, values = store(ROPE(keys)), store(values)
    outputs = []
    for now in range(keys.shape[2]):
        evicted = max(0, now + 1 - window)
        stride = max(stride_of(), keep)
        shift = evicted // stride * stride if moves and keep else 0
        seen = [*range(min(keep, now + 1)), *range(max(keep, now + 1 - (window - keep)), now + 1)]
        first = rotated[:, :, : min(keep, now + 1)]
        if shift:
            first = store(ROPE.shift(first, shift))
        k = mx.concatenate([first, rotated[:, :, max(keep, now + 1 - (window - keep)) : now + 1]], axis=2)
        v = values[:, :, mx.array(seen)]
        q = ROPE(queries[:, :, now : now + 1], offset=now)
        outputs.append(mx.fast.scaled_dot_product_attention(q, k, v, scale=D**-0.5))
    return mx.concatenate(outputs, axis=2)


def stride_of() -> int:
    from mlx_qwen3.cache.window import rotating

    return rotating.STRIDE


def assert_close(a: mx.array, b: mx.array, tolerance: float) -> None:
    difference = mx.abs(a.astype(mx.float32) - b.astype(mx.float32)).max().item()
    assert difference <= tolerance, difference


@pytest.fixture(autouse=True)
def short_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strides and lowered positions that a test of sixty tokens meets several times."""
    monkeypatch.setattr("mlx_qwen3.cache.window.rotating.STRIDE", 5)
    monkeypatch.setattr("mlx_qwen3.cache.window.rotating.LARGEST_POSITION", 24)


windows = st.tuples(st.integers(1, 12), st.integers(0, 11)).filter(lambda pair: pair[1] < pair[0])


def layouts(dtype: mx.Dtype, bits: int) -> Callable[[mx.array], mx.array]:
    layout = Layout(32, bits)
    return lambda rows: dequantize(quantize(rows, layout), layout)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("moves", [False, True])
@quick
@given(window=windows, chunks=chunkings, batch=st.integers(1, 2), seed=st.integers(0, 999))
def test_rotating_equals_a_reference_that_keeps_everything(
    dtype: mx.Dtype, moves: bool, window: tuple[int, int], chunks: list[int], batch: int, seed: int
) -> None:
    rows = random_rows(batch, sum(chunks), seed, dtype)
    cache = RotatingKVCache(*window, ROPE if moves else None)
    outputs = run(cache, rows, chunks)
    plain = [row.astype(mx.float32) for row in rows]
    assert_close(outputs, reference(plain, *window, moves), FORMATS[dtype])
    assert cache.tokens == sum(chunks)
    assert cache.size() == min(sum(chunks), window[0])
    assert cache.nbytes == 2 * batch * KEY_HEADS * window[0] * D * dtype.size


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@quick
@given(chunks=chunkings, batch=st.integers(1, 2), seed=st.integers(0, 999))
def test_quantized_equals_the_same_computation_on_dequantized_rows(
    bits: int, dtype: mx.Dtype, chunks: list[int], batch: int, seed: int
) -> None:
    rows = random_rows(batch, sum(chunks), seed, dtype)
    outputs = run(QuantizedKVCache(32, bits), rows, chunks)
    stored = layouts(dtype, bits)
    length = sum(chunks)
    k, v = stored(ROPE(rows[1])), stored(rows[2])
    expected = mx.fast.scaled_dot_product_attention(ROPE(rows[0]), k, v, scale=D**-0.5, mask="causal")
    assert outputs.shape[2] == length
    assert_close(outputs, expected, max(FORMATS[dtype], 1e-4))


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("moves", [False, True])
@settings(max_examples=15, deadline=None)
@given(window=windows, chunks=chunkings, seed=st.integers(0, 999))
def test_rotating_quantized_equals_rotating_on_dequantized_rows(
    dtype: mx.Dtype, bits: int, moves: bool, window: tuple[int, int], chunks: list[int], seed: int
) -> None:
    # Lowering positions would quantize keys a second time, so it is off here.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlx_qwen3.cache.window.rotating.LARGEST_POSITION", 10**6)
        rows = random_rows(1, sum(chunks), seed, dtype)
        cache = QuantizedRotatingKVCache(*window, ROPE if moves else None, 32, bits)
        outputs = run(cache, rows, chunks)
    expected = reference(rows, *window, moves, layouts(dtype, bits))
    assert_close(outputs, expected, max(FORMATS[dtype], 1e-4))


MAKERS: dict[str, Callable[[], Any]] = {
    "full": KVCache,
    "quantized": lambda: QuantizedKVCache(32, 4),
    "rotating": lambda: RotatingKVCache(40, 3, ROPE),
    "rotating quantized": lambda: QuantizedRotatingKVCache(40, 3, ROPE, 32, 8),
}


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=15, deadline=None)
@given(kept=st.integers(0, 20), dropped=st.integers(1, 20), chunks=chunkings, seed=st.integers(0, 999))
def test_trim_then_replay_equals_never_written(
    kind: str, dtype: mx.Dtype, kept: int, dropped: int, chunks: list[int], seed: int
) -> None:
    rows = random_rows(1, kept + dropped + sum(chunks), seed, dtype)
    cache, untouched = MAKERS[kind](), MAKERS[kind]()
    run(cache, rows, [n for n in (kept, dropped) if n])
    assert cache.trim(dropped) == dropped
    if kept:
        run(untouched, rows, [kept])
    assert_close(
        run(cache, rows, chunks, start=kept + dropped),
        run(untouched, rows, chunks, start=kept + dropped),
        1e-6 if dtype == mx.float32 else 2e-2,
    )


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=10, deadline=None)
@given(before=st.lists(st.integers(1, 30), min_size=1, max_size=5), after=chunkings, seed=st.integers(0, 999))
def test_a_copy_continues_alike_and_leaves_the_original_unchanged(
    kind: str, dtype: mx.Dtype, before: list[int], after: list[int], seed: int
) -> None:
    rows = random_rows(1, sum(before) + sum(after), seed, dtype)
    cache = MAKERS[kind]()
    run(cache, rows, before)
    copy = cache.copy()
    first = run(copy, rows, after, start=sum(before))
    assert_close(run(cache, rows, after, start=sum(before)), first, 1e-6 if dtype == mx.float32 else 2e-2)
    assert copy.tokens == cache.tokens == sum(before) + sum(after)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=st.lists(st.integers(1, 30), max_size=5), after=chunkings, seed=st.integers(0, 999))
def test_saved_and_loaded_a_cache_is_the_same(
    kind: str, dtype: mx.Dtype, before: list[int], after: list[int], seed: int, tmp_path: Path
) -> None:
    rows = random_rows(1, sum(before) + sum(after), seed, dtype)
    cache = MAKERS[kind]()
    if before:
        run(cache, rows, before)
    save_prompt_cache(tmp_path / "cache.safetensors", [cache], {"said": "x"})
    (loaded,), metadata = load_prompt_cache(tmp_path / "cache.safetensors")
    if isinstance(loaded, RotatingKVCache):
        loaded.rotation, loaded.tokens = ROPE, cache.tokens
    assert metadata == {"said": "x"}
    assert type(loaded) is type(cache)
    assert loaded.tokens == sum(before)
    assert cache.empty() == loaded.empty()
    for ours, theirs in zip(tree_flatten(cache.state), tree_flatten(loaded.state), strict=True):
        is_same = mx.array_equal(ours[1], theirs[1]) if isinstance(ours[1], mx.array) else ours == theirs
        assert is_same, ours[0]
    expected = run(cache, rows, after, start=sum(before))
    assert_close(run(loaded, rows, after, start=sum(before)), expected, 0 if dtype == mx.float32 else 2e-2)


@quick
@given(window=windows, before=chunkings, after=chunkings, bits=st.sampled_from([None, 4, 8]))
def test_a_full_cache_turned_rotating_midway_equals_one_that_always_was(
    window: tuple[int, int], before: list[int], after: list[int], bits: int | None
) -> None:
    rows = random_rows(1, sum(before) + sum(after), seed=len(before))
    full: KVCache = KVCache() if bits is None else QuantizedKVCache(32, bits)
    always = RotatingKVCache(*window) if bits is None else QuantizedRotatingKVCache(*window, None, 32, bits)
    run(full, rows, before)
    run(always, rows, before)
    turned = to_rotating(full, *window)
    expected = run(always, rows, after, start=sum(before))
    assert_close(run(turned, rows, after, start=sum(before)), expected, 1e-5)


@pytest.mark.parametrize("mask_kind", ["none", "causal", "boolean", "batched", "additive"])
@pytest.mark.parametrize("bits", [None, 4, 8])
@settings(max_examples=8, deadline=None)
@given(length=st.integers(1, 40), history=st.integers(1, 60), seed=st.integers(0, 999))
def test_tiles_equal_all_scores_at_once(
    mask_kind: str, bits: int | None, length: int, history: int, seed: int
) -> None:
    queries, keys, values = random_rows(2, length + history, seed)
    queries = queries[:, :, history:]
    causal = mx.arange(history, history + length)[:, None] >= mx.arange(history + length)
    mask = {
        "none": None,
        "causal": "causal",
        "boolean": causal,
        "batched": mx.stack([causal, causal & (mx.arange(history + length) != 0)])[:, None],
        "additive": mx.where(causal, 0.0, -1e9),
    }[mask_kind]
    layout = Layout(32, bits or 8)
    stored = [row if bits is None else quantize(row, layout) for row in (keys, values)]
    plain = [row if bits is None else dequantize(row, layout) for row in stored]
    expected = mx.fast.scaled_dot_product_attention(queries, *plain, scale=D**-0.5, mask=mask)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("TILE_SCORES", 1), ("TILE_QUERIES", 7), ("TILE_KEYS", 5), ("FEW_QUERIES", 0)):
            patch.setattr(attend_module, name, size)
        assert_close(attend(queries, *stored, D**-0.5, mask), expected, 1e-5)
    assert_close(attend(queries, *stored, D**-0.5, mask), expected, 1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attend_module, "SMALL_KEYS", 7)
        assert_close(attend(queries, *stored, D**-0.5, mask), expected, 1e-5)
    if bits:
        assert layout_of(stored[0], D) == layout
        head_by_head = attend_module._head_by_head(queries, *stored, D**-0.5, mask)
        assert_close(head_by_head, expected, 1e-5)


@pytest.mark.parametrize("kind", ["rotating", "rotating quantized"])
def test_shifted_first_keys_are_restored_unshifted(kind: str) -> None:
    rows = random_rows(1, 80, seed=5)
    cache, fresh = MAKERS[kind](), MAKERS[kind]()
    run(cache, rows, [1] * 60)
    assert cache.trim(1) == 0  # tokens were dropped, so it cannot be trimmed
    copy = cache.copy()
    run(fresh, rows, [1] * 60)
    expected = run(fresh, rows, [1] * 8, start=60)
    assert_close(run(copy, rows, [1] * 8, start=60), expected, 1e-5)
    cache.restart()
    assert (cache.tokens, cache.offset) == (3, 3)
    anew = MAKERS[kind]()
    run(anew, rows, [3])
    assert_close(run(cache, rows, [12], start=60), run(anew, rows, [12], start=60), 1e-5)


@pytest.mark.parametrize("scaling", [None, RopeScaling(4.0, 64)], ids=["plain", "yarn"])
@quick
@given(position=st.integers(0, 300), by=st.integers(-300, 300), seed=st.integers(0, 99))
def test_shifted_keys_are_those_of_the_other_position(
    scaling: Any, position: int, by: int, seed: int
) -> None:
    rope = RoPE(D, 10000.0) if scaling is None else YarnRoPE(D, 10000.0, scaling)
    keys = random_rows(2, 5, seed)[1]
    assert_close(rope.shift(rope(keys, position), by), rope(keys, position + by), 1e-3)
