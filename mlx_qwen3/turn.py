"""One turn of the model: prompt ids in, events out.

Ties together cache reuse, prefill, decoding, the thinking budget, loop detection and the stream
parser. Knows nothing of conversations, threads or terminals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from mlx_qwen3.cache.prompt import PromptCache
from mlx_qwen3.decode import Model, decode, prefill
from mlx_qwen3.errors import MessageError
from mlx_qwen3.events import (
    AnswerDelta,
    Done,
    Event,
    FinishReason,
    PromptProgress,
    Stats,
    ThinkingDelta,
    ToolCall,
)
from mlx_qwen3.grammar import TurnGrammar
from mlx_qwen3.loops import LoopDetector
from mlx_qwen3.parsing import StreamParser
from mlx_qwen3.sampling import Sampler, SamplingParams
from mlx_qwen3.tokenizer import Tokenizer

# How Qwen3 was trained to end its thinking early (technical report, https://arxiv.org/abs/2505.09388,
# section 4.3; blank lines as in its documentation).
EARLY_END = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking "
    "directly now.\n"
)


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


class Turn:
    """Runs a TurnRequest; afterwards holds what was thought, answered and called."""

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        cache: PromptCache,
        request: TurnRequest,
        is_cancelled: Callable[[], bool],
    ):
        self.request = request
        self.thinking, self.answer = "", ""
        self.tool_calls: list[ToolCall] = []
        self.finish_reason: FinishReason | None = None
        self._model, self._tokenizer, self._cache = model, tokenizer, cache
        self._is_cancelled = is_cancelled
        self._is_thinking = _opens_thinking(request.prompt_ids, tokenizer)
        self._parser = StreamParser(
            control=tokenizer.control_tokens.keys(),
            thinking=self._is_thinking,
            tool_format=tokenizer.template.tool_format if request.tool_schemas else None,
            tool_schemas=request.tool_schemas,
        )
        self._text = tokenizer.stream()
        self._loop = LoopDetector()
        self._grammar = request.grammar
        self._sampler = Sampler(request.params, request.vocab_size, request.grammar)
        self._control_names = {id_: name for name, id_ in tokenizer.control_tokens.items()}
        self._limit = min(request.params.max_tokens, request.context - len(request.prompt_ids))
        if self._grammar is not None:
            self._grammar.limit = self._limit
        self._generated = self._thinking_tokens = self._answer_tokens = 0
        self._first_token_at = self._prefill_seconds = 0.0
        self._cached = 0
        self._called = False  # a call came after the latest word

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
        yield from self._prefill(feed)
        feed = feed[-1:]
        while self.finish_reason is None:
            if self._budget_is_spent():
                feed += yield from self._end_thinking()
            yield from self._decode(feed)
            feed = []
        if self.finish_reason == "stop" and self.tool_calls:
            self.finish_reason = "tool_calls"
        elif self.finish_reason == "stop" and self._grammar is not None:
            self.finish_reason = self._grammar.hurried_by or "stop"
        yield [Done(self._stats(self.finish_reason))]

    def _prefill(self, ids: list[int]) -> Iterator[list[Event]]:
        """Feed all of `ids` but the last, which decoding needs."""
        start, done = time.perf_counter(), 0
        yield [PromptProgress(0, len(ids), self._cached)]
        for processed in prefill(self._model, ids[:-1], self._cache.layers):
            self._cache.extend(ids[done:processed])
            done = processed
            yield [PromptProgress(done, len(ids), self._cached)]
            if self._is_cancelled():
                self.finish_reason = "cancelled"
                return
        self._prefill_seconds = time.perf_counter() - start

    def _decode(self, feed: list[int]) -> Iterator[list[Event]]:
        """Feed `feed` and take tokens until the turn ends or the thinking budget is spent."""
        fed = list(feed)
        tokens = decode(self._model, feed, self._cache.layers, self._sampler)
        try:
            for token in tokens:
                fed.append(token)
                yield self._take(token)
                if self.finish_reason is not None or self._budget_is_spent():
                    return
        finally:
            self._cache.extend(fed)

    def _take(self, token: int) -> list[Event]:
        """Account for one generated token; sets `finish_reason` if it was the last."""
        self._first_token_at = self._first_token_at or time.perf_counter()
        self._generated += 1
        if token in self._tokenizer.eos_token_ids or token == self._tokenizer.control_tokens["<|im_start|>"]:
            self.finish_reason = "stop"
        elif self._is_cancelled():
            self.finish_reason = "cancelled"
        elif self._generated >= self._limit:
            self.finish_reason = "length"
        elif self._loop.push(token):
            self._leave_loop()
        events = [] if self.finish_reason == "stop" else self._parse(token)
        if self.finish_reason is not None:
            events += self._parser.push_text(self._text.finish()) + self._parser.finish()
        return self._collect(events)

    def _leave_loop(self) -> None:
        """End a turn that goes round in a loop; one that is held to a form, at the form's end."""
        if self._grammar is not None and self._grammar.hurry("loop"):
            self._loop = LoopDetector()
        else:
            self.finish_reason = "loop"

    def _parse(self, token: int) -> list[Event]:
        name = self._control_names.get(token)
        if name is None:
            if self._is_thinking:
                self._thinking_tokens += 1
            else:
                self._answer_tokens += 1
            return self._parser.push_text(self._text.push(token))
        events = self._parser.push_text(self._text.finish()) + self._parser.push_control(name)
        if name in ("<think>", "</think>"):
            self._is_thinking = name == "<think>"
        return events

    def _budget_is_spent(self) -> bool:
        budget = self.request.thinking_budget
        if budget is not None and self._is_thinking and self._thinking_tokens >= budget:
            return True
        return self._grammar is not None and self._grammar.must_answer

    def _end_thinking(self) -> Generator[list[Event], None, list[int]]:
        """End the model's thinking for it. Returns the ids that say so, to be fed next."""
        events = self._parser.push_text(self._text.finish() + EARLY_END)
        events += self._parser.push_control("</think>")
        self._is_thinking = False
        yield self._collect(events)
        end = self._tokenizer.think_end_id
        assert end is not None  # a model that thinks has the token
        ids = [*self._tokenizer.encode(EARLY_END), end, *self._tokenizer.encode("\n\n")]
        if self._grammar is not None:
            self._grammar.force(ids)
        return ids

    def _collect(self, events: list[Event]) -> list[Event]:
        for event in events:
            if isinstance(event, ThinkingDelta):
                self.thinking += event.text
            elif isinstance(event, AnswerDelta):
                # What is said before and after a call are paragraphs of one answer.
                self.answer += ("\n\n" if self.answer and self._called else "") + event.text
                self._called = False
            elif isinstance(event, ToolCall):
                self.tool_calls.append(event)
                self._called = True
        return events

    def _stats(self, finish_reason: FinishReason) -> Stats:
        now = time.perf_counter()
        first = self._first_token_at or now
        fresh = len(self.request.prompt_ids) - self._cached
        return Stats(
            prompt_tokens=len(self.request.prompt_ids),
            cached_tokens=self._cached,
            # The blank line of an empty think block is no thought.
            thinking_tokens=self._thinking_tokens if self.thinking else 0,
            answer_tokens=self._answer_tokens,
            ttft=first - self.request.asked_at,
            prompt_tokens_per_second=_rate(fresh - 1, self._prefill_seconds),
            tokens_per_second=_rate(self._generated - 1, now - first),
            peak_memory=mx.get_peak_memory(),
            finish_reason=finish_reason,
        )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if count > 0 and seconds > 0 else 0.0


def _opens_thinking(prompt_ids: list[int], tokenizer: Tokenizer) -> bool:
    """Whether the prompt leaves a think block open, as templates of always-thinking models do."""
    for token in reversed(prompt_ids):
        if token == tokenizer.think_start_id:
            return True
        if token in (tokenizer.think_end_id, tokenizer.control_tokens["<|im_start|>"]):
            return False
    return False
