"""Caches filled with random rows hold as many as were asked for, and a model goes on from them."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_qwen3 import load_model, make_prompt_cache
from mlx_qwen3.cache.random_rows import fill


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("at_once", [None, 7, 100])
def test_a_cache_is_filled_up_to_so_many_rows(bits: int | None, at_once: int | None) -> None:
    model = load_model("demo")
    cache = make_prompt_cache(model, bits=bits)
    mx.eval(model(mx.array([[1, 2, 3]]), cache))
    fill(model, cache, 40, at_once)
    assert [layer.offset for layer in cache] == [40] * len(cache)
    fill(model, cache, 40, at_once)
    assert cache[0].offset == 40
    assert bool(mx.isfinite(model(mx.array([[4]]), cache)).all())
    assert cache[0].offset == 41
