"""One turn of the model: prompt ids in, events out.

Ties together cache reuse, prefill, decoding and what becomes of the tokens. Knows nothing of
conversations, threads or terminals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.engine.turn_output import TurnOutput
from mlx_qwen3.errors import MessageError
from mlx_qwen3.events import Done, Event, FinishReason, PromptProgress, Stats
from mlx_qwen3.generation.decode import Model, decode, prefill
from mlx_qwen3.generation.sampling import Sampler, SamplingParams
from mlx_qwen3.generation.speculative import Speculation
from mlx_qwen3.generation.speculative.drafters import Drafter
from mlx_qwen3.grammar import TurnGrammar
from mlx_qwen3.tokenizer import Tokenizer

# Tokens of `<|im_start|>assistant` and a think block that is empty, and some more.
LONGEST_HEADER = 16


@dataclass(frozen=True)
class TurnRequest:
    """What one turn is asked to do.

    context: the most tokens prompt and answer may have together. asked_at: the `time.perf_counter()`
    that TTFT counts from. tool_schemas: the tools offered, name -> JSON schema of its parameters.
    grammar: what the turn's output is held to.
    """

    prompt_ids: list[int]
    params: SamplingParams
    vocab_size: int
    context: int
    asked_at: float
    thinking_budget: int | None = None
    tool_schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    grammar: TurnGrammar | None = None


class Turn(TurnOutput):
    """Runs a TurnRequest; afterwards holds what was thought, answered and called."""

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        cache: PromptCache,
        request: TurnRequest,
        is_cancelled: Callable[[], bool],
        drafter: Drafter | None = None,
    ):
        limit = min(request.params.max_tokens, request.context - len(request.prompt_ids))
        super().__init__(
            tokenizer,
            request.prompt_ids,
            limit,
            request.thinking_budget,
            request.tool_schemas,
            request.grammar,
        )
        self.request = request
        self._model, self._cache, self._is_cancelled = model, cache, is_cancelled
        self._drafter = drafter
        self._speculation: Speculation | None = None
        self._sampler = Sampler(request.params, request.vocab_size, request.grammar)
        self._first_token_at = self._prefill_seconds = 0.0
        self._cached = self._prefilled = 0

    def run(self) -> Iterator[list[Event]]:
        """Yield the events of each chunk and each token (often none), ending with Done.

        Raises MessageError if the prompt leaves no room for an answer.
        """
        if self._limit < 1:
            raise MessageError(
                f"the conversation has {len(self.request.prompt_ids):,} tokens and the context holds "
                f"{self.request.context:,}; start anew with /clear, or shorten the message"
            )
        mx.reset_peak_memory()
        feed = self._cache.begin(self.request.prompt_ids)
        self._cached = len(self.request.prompt_ids) - len(feed)
        if self._drafter is not None:
            self._speculation = Speculation(self._model, self._cache.layers, self._sampler, self._drafter)
        opening = self._opening(feed)
        yield from self._prefill(feed, len(feed) - opening)
        feed = feed[-opening:]
        while self.finish_reason is None:
            if self.budget_is_spent():
                events, ending = self.end_thinking()
                yield events
                feed += ending
            yield from self._decode(feed)
            feed = []
        yield [Done(self._stats(self.finish_reason))]

    def _opening(self, feed: list[int]) -> int:
        """How many of the last ids are left to decoding, which needs one.

        With a window it is the header of the answer, in which the template leaves out an empty think
        block later: the window can be brought back to what it was before.
        """
        if self._cache.config.max_size is None:
            return 1
        start = self._tokenizer.control_tokens["<|im_start|>"]
        header = feed[: -LONGEST_HEADER - 1 : -1]  # backwards
        return header.index(start) + 1 if start in header else 1

    def _prefill(self, ids: list[int], count: int) -> Iterator[list[Event]]:
        """Feed the first `count` of `ids`, which leaves the others to decoding."""
        start, done = time.perf_counter(), 0
        yield [PromptProgress(0, len(ids), self._cached)]
        for processed in prefill(self._model, ids[:count], self._cache.layers):
            self._cache.extend(ids[done:processed])
            done = processed
            yield [PromptProgress(done, len(ids), self._cached)]
            if self._is_cancelled():
                self.finish_reason = "cancelled"
                return
        known = self.request.prompt_ids[: count - len(ids)]
        for _ in self._drafter.begin(known) if self._drafter else ():
            yield []
            if self._is_cancelled():
                self.finish_reason = "cancelled"
                return
        self._cache.mark()
        self._prefilled, self._prefill_seconds = count, time.perf_counter() - start

    def _decode(self, feed: list[int]) -> Iterator[list[Event]]:
        """Feed `feed` and take tokens until the turn ends or the thinking budget is spent."""
        fed = list(feed)
        try:
            with closing(self._tokens(feed)) as tokens:
                for token in tokens:
                    fed.append(token)
                    self._first_token_at = self._first_token_at or time.perf_counter()
                    yield self.take(token, self._is_cancelled())
                    if self.finish_reason is not None or self.budget_is_spent():
                        return
        finally:
            self._cache.extend(fed)

    def _tokens(self, feed: list[int]) -> Generator[int]:
        if self._speculation is not None:
            return self._speculation.decode(feed)
        return decode(self._model, feed, self._cache.layers, self._sampler)

    def _stats(self, finish_reason: FinishReason) -> Stats:
        now = time.perf_counter()
        first = self._first_token_at or now
        drafts = self._speculation
        return Stats(
            prompt_tokens=len(self.request.prompt_ids),
            cached_tokens=self._cached,
            thinking_tokens=self.thinking_tokens,
            answer_tokens=self.answer_tokens,
            ttft=first - self.request.asked_at,
            prompt_tokens_per_second=_rate(self._prefilled, self._prefill_seconds),
            tokens_per_second=_rate(self.generated - 1, now - first),
            peak_memory=mx.get_peak_memory(),
            finish_reason=finish_reason,
            drafted_tokens=drafts.drafted if drafts else 0,
            accepted_tokens=drafts.accepted if drafts else 0,
            passes_per_token=drafts.passes / max(1, self.generated) if drafts else 1.0,
        )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if count > 0 and seconds > 0 else 0.0
