"""ServerRequest: what a client asked for, whatever its protocol; and what a protocol's writer is given.

A protocol reads JSON into a `ServerRequest`. The service runs it and yields the engine's events
(`mlx_qwen3.events`), each with the number of its choice. A `Writer` turns these into the protocol's chunks,
or, for a request that does not stream, the finished `Reply` of each choice into one JSON object.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from mlx_qwen3.engine.streams import Reply
from mlx_qwen3.events import Event
from mlx_qwen3.server.errors import RequestError, bad_request

ToolChoice = Literal["auto", "none", "required"]

EFFORTS: Mapping[str, tuple[bool, int | None]] = {
    "none": (False, None),
    "minimal": (True, 256),
    "low": (True, 1024),
    "medium": (True, 8192),
    "high": (True, None),
    "xhigh": (True, None),
    "max": (True, None),
}
"""An effort of reasoning as (whether to think, the most tokens of thinking)."""

# Sampling parameters that this server takes where Anthropic's and the Responses API have none.
MORE_SAMPLING = ("min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")


@dataclass(frozen=True)
class ServerRequest:
    """One request, of any protocol.

    Attributes:
        model: The name the client gave; None is the server's default.
        messages: A conversation in OpenAI's form (see `mlx_qwen3.tokenizer.messages`), roles system, user,
            assistant and tool. Calls of tools keep the `id` that the server gave them, and thinking is
            `reasoning_content`: the service restores what a client left out.
        prompts: Texts to complete, or their token ids; there are either messages or prompts.
        tools: The tools offered, each `{"type": "function", "function": {"name", "description",
            "parameters"}}`.
        tool_choice: `required` makes the model call a tool, `none` keeps it from calling.
        tool_name: With `required`, the only tool that it may call.
        parallel_tool_calls: Whether there may be more than one call.
        thinking: Whether to think; None is the server's default.
        thinking_budget: The most tokens of thinking; None is no limit.
        sampling: Values of SamplingParams that the client gave. Others are the model's defaults.
        schema: The JSON schema that the answer must follow; `{"type": "object"}` is any JSON object.
        n: How many answers, numbered from 0; of prompt p, choice c is number p * n + c.
        stream: Whether the client wants events as they come.
        continue_final_message: The last message is the beginning of the answer.
        key: Which API key sent it, for the fair queue. The HTTP layer fills it in.
        options: What the protocol needs again when it writes, such as `include_usage`.
    """

    model: str | None
    messages: Sequence[Mapping[str, Any]] | None = None
    prompts: Sequence[str | Sequence[int]] | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: ToolChoice = "auto"
    tool_name: str | None = None
    parallel_tool_calls: bool = True
    thinking: bool | None = None
    thinking_budget: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    n: int = 1
    stream: bool = False
    continue_final_message: bool = False
    key: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def choices(self) -> int:
        """How many answers there will be."""
        return self.n * (1 if self.prompts is None else len(self.prompts))


@dataclass(frozen=True)
class Started:
    """A request that was accepted.

    Attributes:
        id: Letters and digits that no other request has. Protocols put their own prefix before it.
        model: The name of the model that answers, as `/v1/models` lists it.
        created: Unix time in seconds.
        prompt_tokens: Tokens of the prompts.
        streams_calls: Whether calls are sure to be valid, so that their arguments can be sent as they come.
    """

    id: str
    model: str
    created: int
    prompt_tokens: int
    streams_calls: bool = True

    def call_key(self, choice: int, index: int) -> str:
        """What identifies call number `index` of a choice. The id of the call is a prefix of the protocol's,
        such as `call_` or `toolu_`, and this: the service knows the call by what follows the last `_`."""
        return f"{self.id}c{choice}i{index}"


@dataclass(frozen=True)
class Chunk:
    """One server-sent event. data: a JSON object, or text as it is. event: its `event:` line."""

    data: Mapping[str, Any] | str
    event: str | None = None


class Writer(Protocol):
    """Writes one request's answer in the form of a protocol. Pure: events in, chunks out.

    For a stream `start`, `push` for each event, and `end` (or `fail`) are called; else `whole` alone.
    """

    def start(self) -> list[Chunk]:
        """Before the first event: at once, so that the client has headers and a chunk."""

    def push(self, choice: int, event: Event) -> list[Chunk]:
        """An event of choice number `choice`. Its last is Done."""

    def keep_alive(self) -> list[Chunk]:
        """Nothing happened for some seconds: a chunk that changes nothing, but counts as data."""

    def end(self) -> list[Chunk]:
        """All choices are done."""

    def fail(self, error: RequestError) -> list[Chunk]:
        """The request failed after it had begun. Nothing follows."""

    def whole(self, replies: Sequence[Reply[Any]]) -> Mapping[str, Any]:
        """The answer of a request that does not stream. replies: of each choice, in order."""


class Generation(Protocol):
    """A running request. Iterate over it for (choice, event); closing it cancels what still runs.

    Iterating raises RequestError if the generation fails.
    """

    started: Started

    def __aiter__(self) -> AsyncIterator[tuple[int, Event]]: ...

    async def aclose(self) -> None: ...


def thinking_of_effort(effort: str, where: str) -> tuple[bool, int | None]:
    """Whether to think, and the budget, for an effort of reasoning. where: the field, for the error."""
    if effort not in EFFORTS:
        raise bad_request(f"{where} must be one of {', '.join(EFFORTS)}, not {effort!r}", where)
    return EFFORTS[effort]
