"""TurnSequence: a request as the scheduler runs it. Tokens in, events out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence as Ids

import mlx.core as mx

from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.engine.request import Job, PrefillRequest, TurnRequest
from mlx_qwen3.engine.session_cache import SessionCache
from mlx_qwen3.engine.turn_output import CompletionOutput, TurnOutput
from mlx_qwen3.errors import PromptTooLongError
from mlx_qwen3.events import Done, Event, Logprobs, PromptProgress, Stats, TokenLogprob
from mlx_qwen3.generation.sampling import Sampler, TokenLogprobs
from mlx_qwen3.generation.sequence import Priority, Sequence
from mlx_qwen3.grammar import AnswerSchema, constrain

# Tokens of `<|im_start|>assistant` and an empty think block, and some more.
LONGEST_HEADER = 16


class TurnSequence(Sequence):
    """Runs a TurnRequest over a session's cache, and tells the job its events."""

    def __init__(self, core: EngineCore, request: TurnRequest, cache: SessionCache, job: Job):
        super().__init__(request.prompt_ids, None, request.priority)
        self.request = request
        self.adapter = cache.adapter
        self._core, self._session_cache, self._job = core, cache, job
        self._output: TurnOutput | CompletionOutput | None = None
        if request.params.logprobs or request.params.top_logprobs:
            self.wants_logprobs = request.params.top_logprobs

    def open(self, ids: Ids[int]) -> None:
        if self._output is None:
            self._prepare()
        self.cache = self._session_cache.open(ids)
        self.drafter = self._session_cache.drafter
        self.scaling = self._session_cache.config.rope_scaling
        self.opening = self._opening(self.cache)

    def _prepare(self) -> None:
        """Make what the tokens will be given to. Raises PromptTooLongError, SchemaError."""
        core, request, cache = self._core, self.request, self._session_cache
        if grown := cache.fit(len(request.prompt_ids), request.params.max_tokens):
            self._job.tell([grown])
        limit = min(request.params.max_tokens, cache.context - len(request.prompt_ids))
        if limit < 1:
            raise PromptTooLongError(
                f"the conversation has {len(request.prompt_ids):,} tokens and the context holds "
                f"{cache.context:,}; shorten the message"
            )
        tokenizer, vocab_size = core.tokenizer, core.config.vocab_size
        if request.is_completion:
            grammar = None
            self._output = CompletionOutput(tokenizer, request, limit)
        else:
            schema = AnswerSchema(dict(request.schema), json.loads) if request.schema is not None else None
            grammar = constrain(
                tokenizer,
                vocab_size,
                request.prompt_ids,
                schema,
                request.tool_schemas,
                must_call=request.must_call,
                one_call=request.one_call,
            )
            self._output = TurnOutput(tokenizer, request, limit, grammar)
        self.sampler = Sampler(request.params, vocab_size, grammar, tokenizer.eos_token_ids)
        mx.reset_peak_memory()

    def _opening(self, cache: PromptCache) -> int:
        """Where a window is remembered: before the header of the answer, in which the template leaves out an
        empty think block later."""
        if cache.config.max_size is None:
            return 0
        start = self._core.tokenizer.control_tokens.get("<|im_start|>")
        header = self.prompt_ids[: -LONGEST_HEADER - 1 : -1]  # backwards
        return header.index(start) + 1 if start in header else 1

    def prefilled(self, processed: int, total: int) -> None:
        self._job.tell([PromptProgress(processed, total, self.cached)])
        if processed == total and self._output is not None:
            self._session_cache.share()
            self._job.tell(self._output.start())
            self._feed_forced()

    def take(self, token: int, logprobs: TokenLogprobs | None) -> None:
        assert self._output is not None  # made before the prompt was fed
        self._job.generated += 1
        events: list[Event] = [] if logprobs is None else [self._logprobs(logprobs)]
        events += self._output.push(token)
        if self._output.finish_reason is not None:
            self.finish()
        self._feed_forced()
        self._job.tell(events)

    def _feed_forced(self) -> None:
        assert self._output is not None
        forced = self._output.take_forced()
        if forced is not None:
            self.force(forced)

    def _logprobs(self, logprobs: TokenLogprobs) -> Logprobs:
        def named(token: int, logprob: float) -> TokenLogprob:
            return TokenLogprob(token, self._core.tokenizer.decode([token]), logprob)

        return Logprobs(
            named(logprobs.token, logprobs.logprob),
            tuple(named(token, logprob) for token, logprob in logprobs.top),
        )

    def is_cancelled(self) -> bool:
        return self._job.is_cancelled()

    def notice(self, event: object) -> None:
        self._job.tell([event])

    def cancel(self) -> None:
        if self._output is not None:
            self._job.tell(self._output.cancel())

    def evicted(self) -> None:
        self._session_cache.drop()

    def close(self, error: Exception | None) -> None:
        if error is not None:
            self._session_cache.drop()
        else:
            self._session_cache.share()
            self._job.tell([Done(self._stats())])
        self._job.finish(self._core.explain(error))

    def _stats(self) -> Stats:
        now, times, output = time.perf_counter(), self.times, self._output
        first = times.first_token or now
        generated = output.generated if output is not None else 0
        fed = self.total_to_prefill
        return Stats(
            prompt_tokens=len(self.prompt_ids),
            cached_tokens=self.cached,
            thinking_tokens=output.thinking_tokens if output is not None else 0,
            answer_tokens=output.answer_tokens if output is not None else 0,
            ttft=first - self.request.asked_at,
            prompt_tokens_per_second=_rate(fed, times.prefilled - times.admitted),
            tokens_per_second=_rate(generated - 1, now - first),
            peak_memory=mx.get_peak_memory(),
            finish_reason=(output.finish_reason if output is not None else None) or "cancelled",
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
            passes_per_token=self.decode_passes / max(1, generated) if self.drafted else 1.0,
            generated_tokens=generated,
            queue_time=max(0.0, (times.admitted or now) - self.request.asked_at),
            time_per_output_token=(now - first) / (generated - 1) if generated > 1 else 0.0,
            batch_size=self.largest_batch,
            stop_string=output.stop_string if output is not None else None,
        )


class PrefillSequence(Sequence):
    """Runs a PrefillRequest. It generates nothing."""

    def __init__(self, request: PrefillRequest, cache: SessionCache, job: Job):
        super().__init__(request.prompt_ids, None, Priority.BACKGROUND)
        self.adapter = cache.adapter
        self._session_cache, self._job = cache, job

    def open(self, ids: Ids[int]) -> None:
        self.cache = self._session_cache.open(ids)
        self.scaling = self._session_cache.config.rope_scaling

    def is_cancelled(self) -> bool:
        return self._job.is_cancelled()

    def evicted(self) -> None:
        self._session_cache.drop()

    def close(self, error: Exception | None) -> None:
        if error is None:
            self._session_cache.share()
        elif self.cache is not None:
            self._session_cache.drop()
        self._job.finish(None)


def _rate(count: int, seconds: float) -> float:
    return count / seconds if count > 0 and seconds > 0 and math.isfinite(seconds) else 0.0
