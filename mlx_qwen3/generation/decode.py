"""Prefill and decode: token ids in, token ids out. No text, no tokenizer, no printing.

Both are generators, so that whoever runs them decides after every chunk and every token whether to
go on; stopping leaves the cache holding exactly what was fed and yielded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
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
# Half a chunk must run at this share of the best speed at least, or halving is taken back: a device
# that reads all weights for each chunk gains nothing from small ones.
WORTH_HALVING = 0.7
CLEAR_MEMORY_EVERY = 256


def prefill(
    model: Model, ids: Sequence[int], cache: Sequence[Cache], chunk_size: int | None = None
) -> Iterator[int]:
    """Append `ids` to `cache`, yielding after each chunk how many have been.

    chunk_size: tokens at a time; None adapts it to the speed measured, between 32 and 2,048.
    """
    sizes, done = ChunkSizes(), 0
    read = getattr(model, "read", model)  # else logits, which are never evaluated, so mostly not computed
    while done < len(ids):
        size = chunk_size or sizes.size
        chunk = ids[done : done + size]
        start = time.perf_counter()
        read(mx.array([chunk]), cache)
        mx.eval([layer.state for layer in cache])
        mx.clear_cache()
        if len(chunk) == size:
            sizes.learn(time.perf_counter() - start)
        done += len(chunk)
        yield done


class ChunkSizes:
    """Finds the chunk size whose time suits, from the times measured. `size` is the one to use next."""

    def __init__(self) -> None:
        self.size = FIRST_CHUNK
        self._speed: dict[int, float] = {}  # tokens a second at each size tried

    def learn(self, seconds: float) -> None:
        """A chunk of `size` tokens took `seconds`."""
        size, speed = self.size, self.size / max(seconds, 1e-9)
        self._speed[size] = speed
        halved_in_vain = 2 * size in self._speed and not self._is_fast_enough(speed)
        if halved_in_vain or (seconds < CHUNK_SECONDS[0] and size < LARGEST_CHUNK):
            self.size = 2 * size
        elif seconds > CHUNK_SECONDS[1] and size > SMALLEST_CHUNK and self._is_worth_halving(size):
            self.size = size // 2

    def _is_worth_halving(self, size: int) -> bool:
        half = self._speed.get(size // 2)
        return half is None or self._is_fast_enough(half)

    def _is_fast_enough(self, speed: float) -> bool:
        return speed >= WORTH_HALVING * max(self._speed.values())


def decode(model: Model, ids: Sequence[int], cache: Sequence[Cache], sampler: TokenSampler) -> Generator[int]:
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
