"""Sequences that record what happens to them, and running them on a scheduler."""

from __future__ import annotations

from collections.abc import Sequence as Ids
from typing import Any

from parity.model_cases import VOCAB
from plain_decoding import decode_plainly

from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.prefix_pool import PrefixPool
from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import Sampler, TokenLogprobs
from mlx_qwen3.generation.scheduler import Scheduler
from mlx_qwen3.generation.sequence import Priority, Sequence


class Recorded(Sequence):
    """A sequence that says what happened to it."""

    def __init__(
        self,
        model: Any,
        prompt: Ids[int],
        params: SamplingParams,
        limit: int = 10,
        stop: Ids[int] = (),
        forced: dict[int, Ids[int]] | None = None,
        cancel_after: int | None = None,
        pool: PrefixPool | None = None,
        priority: Priority = Priority.INTERACTIVE,
        constraint: Any = None,
        vocab_size: int = VOCAB,
        **cache: Any,
    ):
        super().__init__(prompt, Sampler(params, vocab_size, constraint), priority)
        self.model, self.limit, self.stop, self.forced_after = model, limit, stop, forced or {}
        self.cache_config, self.pool, self.cancel_after = CacheConfig(**cache), pool, cancel_after
        self.tokens: list[int] = []
        self.progress: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.ended: list[Exception | None] = []
        self.opened = 0
        if "max_size" in cache:
            self.opening = 3

    def open(self, ids: Ids[int]) -> None:
        self.opened += 1
        self.cache = (self.pool and self.pool.find(ids, None)) or PromptCache(self.model, self.cache_config)

    def prefilled(self, processed: int, total: int) -> None:
        self.progress.append(processed)
        if processed == total and self.pool is not None and self.cache is not None:
            self.pool.add(self.cache, None)

    def take(self, token: int, logprobs: TokenLogprobs | None) -> None:
        self.tokens.append(token)
        if logprobs is not None:
            self.logprobs.append(logprobs)
        if len(self.tokens) == self.limit or token in self.stop:
            self.finish()
        elif len(self.tokens) in self.forced_after:
            self.force(self.forced_after[len(self.tokens)])

    def is_cancelled(self) -> bool:
        return self.cancel_after is not None and len(self.tokens) >= self.cancel_after

    def close(self, error: Exception | None) -> None:
        self.ended.append(error)


def run(model: Any, sequences: Ids[Sequence], size: int = 3, arrivals: Ids[int] = (), **options: Any) -> None:
    """Run all; `arrivals` says before which step each is added."""
    scheduler = Scheduler(model, size=size, **options)
    waiting = sorted(
        zip([*arrivals, *[0] * len(sequences)], sequences, strict=False), key=lambda pair: pair[0]
    )
    for step in range(100_000):
        while waiting and waiting[0][0] <= step:
            scheduler.add(waiting.pop(0)[1])
        scheduler.step()
        assert len(scheduler._queue.running) <= size
        if scheduler.is_idle and not waiting:
            return
    raise AssertionError("it does not end")


def expected(model: Any, sequence: Recorded, params: SamplingParams, **cache: Any) -> list[int]:
    count = sequence.limit if sequence.cancel_after is None else min(sequence.limit, sequence.cancel_after)
    tokens = decode_plainly(
        model, sequence.prompt_ids, params, count, VOCAB, forced=sequence.forced_after, **cache
    )
    end = next((place for place, token in enumerate(tokens) if token in sequence.stop), len(tokens) - 1)
    return tokens[: end + 1]


def check(model: Any, sequence: Recorded, params: SamplingParams, **cache: Any) -> None:
    assert sequence.ended == [None]
    # A difference in the last bit may round a value of a quantized cache to the next step.
    assert "bits" in cache or sequence.tokens == expected(model, sequence, params, **cache)
    assert sequence.cache is not None
    held = sequence.cache.ids
    assert {layer.tokens for layer in sequence.cache.layers} == {len(held)}
    if not sequence.forced_after and "max_size" not in cache:  # of a long prompt a window skips the middle
        assert [*sequence.prompt_ids, *sequence.tokens][: len(held)] == held
        assert len(held) >= len(sequence.prompt_ids) + len(sequence.tokens) - 1
