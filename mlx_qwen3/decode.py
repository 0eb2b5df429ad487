"""Prefill and decode: token ids in, token ids out. No text, no tokenizer, no printing.

Both are generators, so that whoever runs them decides after every chunk and every token whether to
go on; stopping leaves the cache holding exactly what was fed and yielded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Protocol

import mlx.core as mx

from mlx_qwen3.cache.base import Cache

Model = Callable[[mx.array, Sequence[Cache]], mx.array]


class TokenSampler(Protocol):
    """Chooses tokens, lazily, and is told which ones were taken."""

    def __call__(self, logits: mx.array) -> mx.array: ...

    def observe(self, token: mx.array) -> None: ...


# A chunk should take about this long, so that a cancel never waits longer.
CHUNK_SECONDS = (0.12, 0.35)
SMALLEST_CHUNK, FIRST_CHUNK, LARGEST_CHUNK = 32, 256, 2048
CLEAR_MEMORY_EVERY = 256


def prefill(
    model: Model, ids: Sequence[int], cache: Sequence[Cache], chunk_size: int | None = None
) -> Iterator[int]:
    """Append `ids` to `cache`, yielding after each chunk how many have been.

    chunk_size: tokens at a time; None adapts it to the speed measured, between 32 and 2,048.
    """
    size, done = chunk_size or FIRST_CHUNK, 0
    while done < len(ids):
        chunk = ids[done : done + size]
        start = time.perf_counter()
        model(mx.array([chunk]), cache)  # logits are never evaluated, so they are never computed
        mx.eval([layer.state for layer in cache])
        mx.clear_cache()
        if chunk_size is None and len(chunk) == size:
            size = _next_chunk_size(size, time.perf_counter() - start)
        done += len(chunk)
        yield done


def _next_chunk_size(size: int, seconds: float) -> int:
    if seconds < CHUNK_SECONDS[0]:
        return min(size * 2, LARGEST_CHUNK)
    if seconds > CHUNK_SECONDS[1]:
        return max(size // 2, SMALLEST_CHUNK)
    return size


def decode(model: Model, ids: Sequence[int], cache: Sequence[Cache], sampler: TokenSampler) -> Iterator[int]:
    """Feed `ids` (one at least), then yield tokens without end; the caller stops.

    One step runs ahead: when a token is yielded its own step is under way, so `cache` holds it and
    nothing after it.
    """

    def step(inputs: mx.array) -> mx.array:
        token = sampler(model(inputs[None], cache)[0, -1])
        mx.async_eval(token)  # type: ignore[no-untyped-call]
        return token

    token = step(mx.array(list(ids)))
    for number in count(1):
        sampler.observe(token)
        following = step(token.reshape(1))
        yield int(token.item())  # type: ignore[arg-type]  # MLX types item() as complex too
        token = following
        if number % CLEAR_MEMORY_EVERY == 0:
            mx.clear_cache()
