"""Fills KV caches with random rows, so that what comes after a long prompt can be measured without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx


def fill(model: Any, cache: Sequence[Any], rows: int, at_once: int | None = None) -> None:
    """Add random rows to each layer of `cache` until it has `rows`, in the type that the model computes in.

    at_once: The most rows added in one step. Each step takes memory for them beside the cache.
    """
    dtype = model.model.embed_tokens(mx.array([[0]])).dtype
    heads, head_dim = model.args.num_key_value_heads, model.args.head_dim
    start = cache[0].offset
    for place in range(start, rows, at_once or max(rows - start, 1)):
        shape = (1, heads, min(at_once or rows, rows - place), head_dim)
        drawn = mx.random.normal(shape, key=mx.random.key(place + 1)).astype(dtype)
        for layer in cache:
            layer.update_and_fetch(drawn, drawn)
            mx.eval(layer.state)
    mx.clear_cache()
