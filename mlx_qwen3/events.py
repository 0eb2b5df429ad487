"""What a running turn reports: frozen dataclasses of plain Python values, safe to pass to any thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length", "cancelled", "loop", "tool_calls"]
"""Why generation ended: the model ended its turn, `max_tokens` or the context was reached, somebody
cancelled, the text went round in a loop, or the model asked for tools."""


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """The prompt is being read: `processed` of `total` new tokens; `cached` were known already."""

    processed: int
    total: int
    cached: int


@dataclass(frozen=True, slots=True)
class ContextGrown:
    """The conversation outgrew its context: positions are scaled by `factor` (YaRN), which makes room
    for `context` tokens, and all of it is read once more."""

    context: int
    factor: float


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """More of the model's thinking; never contains a think tag."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDone:
    """The model has thought: `tokens` of it, in `seconds`. Not told of an empty think block."""

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

    arguments: parsed (repaired where that was safe); None where `error` says, for the model to
    read, why they could not be used. raw: the call as the model spelled it.
    """

    index: int
    name: str
    arguments: dict[str, Any] | None
    raw: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came back from call number `index`; `seconds` is how long it took."""

    index: int
    name: str
    text: str
    is_error: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of one turn. Tokens are counts, times are seconds, memory is bytes.

    prompt_tokens: the whole prompt; cached_tokens of it were in the cache. thinking_tokens leaves
    out the tags and the sentence that ends a thinking budget. ttft: from asking to first token.
    finish_reason: why the turn ended. drafted_tokens were guessed ahead, accepted_tokens of them came
    true; passes_per_token is how often the model ran for each token it said, 1 without speculation.
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
    | ThinkingDelta
    | ThinkingDone
    | AnswerDelta
    | ToolCallStart
    | ToolCallDelta
    | ToolCall
    | ToolResult
    | Done
)
