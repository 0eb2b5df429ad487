"""Tokens rolled back equal tokens never written: any window, chunks, wraps, shifts and lowered positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from properties.test_caches import FORMATS, ROPE, assert_close, random_rows, run, short_strides, windows

from mlx_qwen3.cache.kv import KVCache, QuantizedKVCache
from mlx_qwen3.cache.window.rollback_log import OverwrittenRows, RollbackLog
from mlx_qwen3.cache.window.rotating import QuantizedRotatingKVCache, RotatingKVCache

__all__ = ["short_strides"]

Window = tuple[int, int]
MAKERS: dict[str, Callable[[Window], Any]] = {
    "full": lambda _: KVCache(),
    "quantized": lambda _: QuantizedKVCache(32, 8),
    "rotating": lambda window: RotatingKVCache(*window, ROPE),
    "rotating, first keys unshifted": lambda window: RotatingKVCache(*window),
    "rotating quantized": lambda window: QuantizedRotatingKVCache(*window, ROPE, 32, 8),
}
ROUNDING = 2e-3  # of keys rotated by two ways to the same position; quantized ones may round to another step
chunks = st.lists(st.integers(1, 5), min_size=1, max_size=8)


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=60, deadline=None)
@given(
    window=windows,
    before=st.integers(0, 40),
    rounds=st.lists(
        st.tuples(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 9)), max_size=7
    ),
    after=chunks,
    seed=st.integers(0, 99),
)
def test_written_and_rolled_back_equals_never_written(
    kind: str,
    window: Window,
    before: int,
    rounds: list[tuple[list[int], int]],
    after: list[int],
    seed: int,
) -> None:
    """Round after round tokens are written and some of them rolled back, as in speculative decoding."""
    kept, written = random_rows(1, 200, seed), random_rows(1, 40, seed + 100)
    cache, untouched = MAKERS[kind](window), MAKERS[kind](window)
    limit = cache.keep_for_rollback(9)
    done = 0
    if before:
        run(cache, kept, [before])
        run(untouched, kept, [before])
        done = before
    for lengths, extra in rounds:
        lengths = [length for length in lengths if length <= limit]
        for length in lengths:
            run(cache, kept, [length], start=done)
            run(untouched, kept, [length], start=done)
            done += length
        if 0 < extra <= limit:
            run(cache, written, [1] * extra if seed % 2 else [extra])
            assert cache.max_trim() >= extra
            assert cache.trim(extra) == extra
        assert cache.tokens == untouched.tokens == done
    tolerance = 0.1 if "quantized" in kind else ROUNDING
    assert_close(run(cache, kept, after, start=done), run(untouched, kept, after, start=done), tolerance)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_without_lowered_positions_nothing_is_rounded(
    dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_qwen3.cache.window.rotating.LARGEST_POSITION", 10**6)
    rows, other = random_rows(1, 60, 3, dtype), random_rows(1, 6, 4, dtype)
    for kind in ("rotating", "rotating quantized"):
        cache, untouched = MAKERS[kind]((12, 3)), MAKERS[kind]((12, 3))
        cache.keep_for_rollback(6)
        run(cache, rows, [20])
        run(untouched, rows, [20])
        for start in range(20, 50):
            run(cache, other, [6] if start % 2 else [1, 2, 3])
            assert cache.trim(6) == 6
            outputs = [run(each, rows, [1], start=start) for each in (cache, untouched)]
            assert mx.array_equal(*outputs)


def test_more_than_is_logged_is_not_rolled_back() -> None:
    cache = RotatingKVCache(12, 3, ROPE)
    rows = random_rows(1, 60, 1)
    assert cache.keep_for_rollback(100) == 9
    cache.keep_for_rollback(4)
    run(cache, rows, [10])
    assert cache.max_trim() == 10
    run(cache, rows, [1] * 10, start=10)
    assert cache.max_trim() == 4
    assert cache.trim(5) == 0
    assert cache.trim(3) == 3
    assert (cache.tokens, cache.max_trim()) == (17, 1)
    run(cache, rows, [5], start=17)  # longer than the log
    assert cache.max_trim() == 0
    cache.keep_for_rollback(0)
    run(cache, rows, [1], start=22)
    assert cache.max_trim() == 0


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=12), limit=st.integers(1, 8), data=st.data())
def test_the_log_holds_the_latest_rows_and_no_more(lengths: list[int], limit: int, data: Any) -> None:
    log, position = RollbackLog(limit), 0
    for length in (min(length, limit) for length in lengths):
        rows = mx.arange(position, position + length)[None, None, :, None]
        log.record(OverwrittenRows(position, position + length, rows, rows))
        position += length
    assert log.start == max(0, position - limit)
    back_to = data.draw(st.integers(log.start, position))
    undone = log.roll_back(back_to)
    values = [value for write in reversed(undone) for value in write.keys[0, 0, :, 0].tolist()]
    assert values == list(range(back_to, position))
    assert log.roll_back(back_to) == []
