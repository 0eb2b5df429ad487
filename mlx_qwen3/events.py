"""Events of a running turn: frozen dataclasses of plain Python values, safe to pass to any thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length", "cancelled", "loop", "tool_calls"]
"""Why generation ended: `stop`, the model ended its turn; `length`, `max_tokens` or the context was reached;
`cancelled`, the caller cancelled; `loop`, the text repeated itself; `tool_calls`, the model called tools."""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far an engine is before it can be used: `done` of `total` bytes. No event of a turn.

    Attributes:
        stage: `downloading`, then `loading`: the weights are read into memory. A model on this machine
            has the second alone; a draft model has stages of its own.
    """

    stage: Literal["downloading", "loading"]
    done: int
    total: int

    @property
    def fraction(self) -> float:
        """The part that is done, from 0 to 1."""
        return self.done / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """Prefill has processed `processed` of `total` new prompt tokens; `cached` more were in the KV cache."""

    processed: int
    total: int
    cached: int


@dataclass(frozen=True, slots=True)
class ContextGrown:
    """The conversation outgrew its context. Positions are scaled by `factor` (YaRN), the context is now
    `context` tokens, and the whole prompt is prefilled again."""

    context: int
    factor: float


@dataclass(frozen=True, slots=True)
class MemoryLow:
    """The machine's memory is scarce. `parked`: KV caches of idle conversations, `nbytes` of them, were moved
    to disk; `waiting`: texts that wait are not begun until there is memory again. This turn goes on."""

    action: Literal["parked", "waiting"]
    nbytes: int


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """More of the thinking; never contains a think tag."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDone:
    """Thinking has ended after `tokens` tokens and `seconds`. Not sent for an empty think block."""

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """More of the answer; never contains thinking, think tags or tool calls."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """The model began call number `index` of this turn, to the tool `name`."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the arguments of call number `index`, as the model spells them."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Call number `index` is complete.

    Attributes:
        arguments: The parsed arguments, repaired where that is safe; None if they cannot be used.
        raw: The call as the model spelled it.
        error: Why the arguments cannot be used, worded for the model.
    """

    index: int
    name: str
    arguments: dict[str, Any] | None
    raw: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of call number `index`, which took `seconds`."""

    index: int
    name: str
    text: str
    is_error: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of one turn.

    Attributes:
        prompt_tokens: Tokens of the whole prompt.
        cached_tokens: Tokens of the prompt that were in the KV cache.
        thinking_tokens: Generated tokens of thinking, without the tags and without the sentence that
            ends a thinking budget.
        answer_tokens: Generated tokens of the answer.
        ttft: Seconds from the request to the first token.
        prompt_tokens_per_second: Speed of prefill.
        tokens_per_second: Speed of decoding.
        peak_memory: Peak memory of MLX during the turn, in bytes.
        finish_reason: Why the turn ended.
        drafted_tokens: Tokens proposed by speculative decoding.
        accepted_tokens: Drafted tokens that the model accepted.
        passes_per_token: Forward passes of the model per generated token; 1 without speculation.
        generated_tokens: All tokens generated, with tags and the token that ended the turn.
        queue_time: Seconds from the request until the scheduler admitted it.
        time_per_output_token: Mean seconds between two tokens.
        batch_size: The most sequences that were decoded together with this one, itself included.
        stop_string: The stop string that ended the turn, if one did.
    """

    prompt_tokens: int
    cached_tokens: int
    thinking_tokens: int
    answer_tokens: int
    ttft: float
    prompt_tokens_per_second: float
    tokens_per_second: float
    peak_memory: int
    finish_reason: FinishReason
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    passes_per_token: float = 1.0
    generated_tokens: int = 0
    queue_time: float = 0.0
    time_per_output_token: float = 0.0
    batch_size: int = 1
    stop_string: str | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with its text and its log probability."""

    token: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Logprobs:
    """The log probability of one generated token, and of the likeliest tokens at its position.

    They are of the model's own distribution, before logit bias, penalties, temperature and filters. Sent
    only if `SamplingParams.logprobs` asks for them.
    """

    token: TokenLogprob
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The turn is over."""

    stats: Stats

    @property
    def finish_reason(self) -> FinishReason:
        return self.stats.finish_reason


Event = (
    PromptProgress
    | ContextGrown
    | MemoryLow
    | ThinkingDelta
    | ThinkingDone
    | AnswerDelta
    | ToolCallStart
    | ToolCallDelta
    | ToolCall
    | ToolResult
    | Logprobs
    | Done
)
