"""Events of a turn and the request they answer, for tests of the server's protocols without HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mlx_qwen3.engine.streams import Reply, collect
from mlx_qwen3.events import (
    AnswerDelta,
    Done,
    Event,
    FinishReason,
    PromptProgress,
    Stats,
    ThinkingDelta,
    ThinkingDone,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)
from mlx_qwen3.server.http import sse
from mlx_qwen3.server.request import Started, Writer

STARTED = Started("0123abcd", "demo", 1_700_000_000, 30)


def stats(finish_reason: FinishReason = "stop", **values: Any) -> Stats:
    """Figures of a turn: 30 tokens of prompt, 20 of them cached; 5 of thinking, 12 in all."""
    given: dict[str, Any] = {
        "prompt_tokens": 30,
        "cached_tokens": 20,
        "thinking_tokens": 5,
        "answer_tokens": 4,
        "ttft": 0.1,
        "prompt_tokens_per_second": 1.0,
        "tokens_per_second": 1.0,
        "peak_memory": 1,
        "generated_tokens": 12,
        "finish_reason": finish_reason,
    }
    return Stats(**(given | values))


def call_events(
    index: int, name: str, pieces: Iterable[str], arguments: Any, error: str | None = None
) -> list[Event]:
    """A call, its arguments in pieces."""
    text = "".join(pieces)
    raw = f'{{"name": "{name}", "arguments": {text}}}'
    deltas = [ToolCallDelta(index, piece) for piece in pieces]
    return [ToolCallStart(index, name), *deltas, ToolCall(index, name, arguments, raw, error)]


WEATHER = call_events(0, "get_weather", ['{"ci', 'ty": "Par', 'is"}'], {"city": "Paris"})
TURN: list[Event] = [
    PromptProgress(10, 10, 20),
    ThinkingDelta("Let me "),
    ThinkingDelta("see."),
    ThinkingDone(5, 0.2),
    AnswerDelta("It is "),
    AnswerDelta("warm."),
    Done(stats()),
]
CALLING: list[Event] = [
    ThinkingDelta("I need the weather."),
    ThinkingDone(5, 0.2),
    AnswerDelta("One moment."),
    *WEATHER,
    *call_events(1, "get_weather", ['{"city": "Rome"}'], {"city": "Rome"}),
    Done(stats("tool_calls")),
]


def stream_of(writer: Writer, events: Iterable[Event]) -> Iterator[Any]:
    """The chunks of a whole stream."""
    yield from writer.start()
    for event in events:
        yield from writer.push(0, event)
    yield from writer.end()


def bytes_of(writer: Writer, events: Iterable[Event]) -> bytes:
    """A whole stream as it is sent."""
    return sse(list(stream_of(writer, events)))


def reply_of(events: Iterable[Event]) -> Reply[Any]:
    """What a client that does not stream is answered from."""
    return collect(iter(list(events)))
