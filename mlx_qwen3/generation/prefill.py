"""Feeding a prompt: chunk by chunk, in chunks whose time suits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.prompt_cache import PromptCache

Forward = Callable[[mx.array, Sequence[Cache]], mx.array]

# A chunk should take about this long, so that a cancel never waits longer.
CHUNK_SECONDS = (0.12, 0.35)
SMALLEST_CHUNK, FIRST_CHUNK, LARGEST_CHUNK = 32, 256, 2048
# Half a chunk must run at this share of the best speed at least, or halving is undone: a device that
# reads all weights for each chunk gains nothing from small ones.
WORTH_HALVING = 0.7
CLEAR_MEMORY_EVERY = 256  # passes


def prefill(
    model: Forward, ids: Sequence[int], cache: Sequence[Cache], chunk_size: int | None = None
) -> Iterator[int]:
    """Append `ids` to `cache`, yielding after each chunk how many have been.

    chunk_size: tokens at a time; None adapts it to the speed measured, between 32 and 2,048.
    """
    sizes, done = AdaptiveChunkSize(), 0
    # Other models compute logits; these are never evaluated, so mostly not computed.
    read = getattr(model, "hidden_states", model)
    while done < len(ids):
        chunk = ids[done : done + (chunk_size or sizes.size)]
        start = time.perf_counter()
        read(mx.array([chunk], mx.uint32), cache)
        mx.eval([layer.state for layer in cache])
        mx.clear_cache()
        sizes.record(len(chunk), time.perf_counter() - start)
        done += len(chunk)
        yield done


def fill(cache: PromptCache, model: Forward, ids: Sequence[int]) -> Iterator[int]:
    """Prefill what `cache` lacks of `ids`; yields after each chunk how many tokens were fed."""
    rest, done = cache.begin_prefix(ids), 0
    for processed in prefill(model, rest, cache.layers):
        cache.extend(rest[done:processed])
        done = processed
        yield done


class AdaptiveChunkSize:
    """Finds the chunk size whose time suits, from the times measured. `size` is the one to use next."""

    def __init__(self) -> None:
        self.size = FIRST_CHUNK
        self._speed: dict[int, float] = {}  # tokens a second at each size tried

    def record(self, tokens: int, seconds: float) -> None:
        """A chunk of `tokens` took `seconds`; one of another size than `size` teaches nothing."""
        size = self.size
        if tokens != size:
            return
        speed = self._speed[size] = size / max(seconds, 1e-9)
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
