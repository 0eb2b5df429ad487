"""A conversation: its messages, its prompt cache, how it thinks; each turn a stream of events."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlx_qwen3.cache.prompt import PromptCache
from mlx_qwen3.errors import EngineError, MessageError
from mlx_qwen3.events import (
    AnswerDelta,
    Done,
    Event,
    FinishReason,
    Stats,
    ThinkingDelta,
    ToolCall,
)
from mlx_qwen3.sampling import SamplingParams
from mlx_qwen3.turn import Turn, TurnRequest

if TYPE_CHECKING:
    from mlx_qwen3.engine import Engine, Job

Message = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """A whole turn: what `Session.ask` returns."""

    thinking: str
    answer: str
    stats: Stats
    finish_reason: FinishReason
    tool_calls: list[ToolCall] = field(default_factory=list)


class Session:
    """One conversation on an engine. Make it with `engine.session(...)`.

    system: a system message. thinking: the hard switch, True lets the model think. Where it may,
    `/think` and `/no_think` inside a message switch it from there on. thinking_budget: the most
    tokens it may think for, None without limit. sampling: SamplingParams, or a mapping of the
    values that differ from Qwen's preset for the mode.

    One turn runs at a time; sessions of one engine take turns.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        system: str | None = None,
        thinking: bool = True,
        thinking_budget: int | None = None,
        sampling: SamplingParams | Mapping[str, Any] | None = None,
    ):
        if thinking_budget is not None and thinking_budget < 0:
            raise MessageError(f"the thinking budget counts tokens, it cannot be {thinking_budget}")
        self.messages: list[Message] = [{"role": "system", "content": system}] if system else []
        self.thinking = thinking
        self.thinking_budget = thinking_budget
        self.sampling = sampling
        self.last_stats: Stats | None = None
        self._engine = engine
        self._cache: PromptCache | None = None  # touched on the engine's thread only
        self._job: Job | None = None

    def send(self, text: str) -> Iterator[Event]:
        """Say `text` and iterate over the events of the turn, the last of them Done.

        Leaving the loop early cancels the turn; what was said so far stays in the conversation.
        Raises MessageError if the conversation is too long, EngineError if the engine is closed.
        """
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        job = self._start(text, inbox.put)
        try:
            while (item := inbox.get()) is not job.END:
                yield _event_or_raise(item)
        finally:
            job.cancel()
            job.wait()

    async def asend(self, text: str) -> AsyncIterator[Event]:
        """`send` for asyncio: the loop is never blocked."""
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        job = self._start(text, lambda item: loop.call_soon_threadsafe(inbox.put_nowait, item))
        try:
            while (item := await inbox.get()) is not job.END:
                yield _event_or_raise(item)
        finally:
            job.cancel()

    def ask(self, text: str) -> Reply:
        """Say `text` and wait for the whole turn."""
        thinking, answer, calls = "", "", []
        for event in self.send(text):
            match event:
                case ThinkingDelta():
                    thinking += event.text
                case AnswerDelta():
                    answer += event.text
                case ToolCall():
                    calls.append(event)
                case Done():
                    done = event
        return Reply(thinking, answer, done.stats, done.finish_reason, calls)

    def cancel(self) -> None:
        """Stop the running turn, from any thread; the session stays usable."""
        if self._job is not None:
            self._job.cancel()

    def clear(self) -> None:
        """Forget the conversation, all but its system message."""
        self.messages = [message for message in self.messages[:1] if message["role"] == "system"]

    @property
    def tokens(self) -> int:
        """Tokens of the conversation the cache holds."""
        return len(self._cache.ids) if self._cache else 0

    def prompt_ids(self, messages: Sequence[Message] | None = None) -> list[int]:
        """The ids the model would be given for `messages`, by default the conversation so far."""
        return self._engine.tokenizer.apply_chat_template(
            list(self.messages if messages is None else messages), enable_thinking=self._may_think()
        )

    def _may_think(self) -> bool:
        return self.thinking and self.thinking_budget != 0

    def params(self) -> SamplingParams:
        """The sampling parameters of the next turn: the preset of its mode, and what was set."""
        if isinstance(self.sampling, SamplingParams):
            return self.sampling
        return SamplingParams.for_mode(self._may_think()).with_values(**(self.sampling or {}))

    def _start(self, text: str, sink: Callable[[Any], object]) -> Job:
        if self._job is not None and not self._job.finished.is_set():
            if not self._job.is_cancelled():
                raise EngineError("this session is still answering; cancel that turn first")
            self._job.wait()
        asked_at = time.perf_counter()
        self._job = self._engine.submit(lambda job: self._turn(job, text, asked_at), sink)
        return self._job

    def _turn(self, job: Job, text: str, asked_at: float) -> Generator[list[Event], None, None]:
        """One turn, on the engine's thread. The conversation changes only if something was said."""
        engine = self._engine
        messages = [*self.messages, {"role": "user", "content": text}]
        if self._cache is None:
            self._cache = PromptCache(engine.model)
        request = TurnRequest(
            prompt_ids=self.prompt_ids(messages),
            params=self.params(),
            vocab_size=engine.model.args.vocab_size,
            context=engine.context,
            asked_at=asked_at,
            thinking_budget=self.thinking_budget,
        )
        turn = Turn(engine.model, engine.tokenizer, self._cache, request, job.is_cancelled)
        try:
            for events in turn.run():
                if events and isinstance(events[-1], Done):
                    self._keep(messages, turn, events[-1])
                yield events
        except Exception:
            self._cache = None  # a step that failed half way leaves layers of different lengths
            raise

    def _keep(self, messages: list[Message], turn: Turn, done: Done) -> None:
        self.last_stats = done.stats
        said_nothing = not (turn.thinking or turn.answer or turn.tool_calls)
        if said_nothing and done.finish_reason == "cancelled":
            return
        self.messages = [*messages, _assistant_message(turn)]


def _assistant_message(turn: Turn) -> Message:
    message: Message = {"role": "assistant", "content": turn.answer, "reasoning_content": turn.thinking}
    if turn.tool_calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments or call.raw}}
            for call in turn.tool_calls
        ]
    return message


def _event_or_raise(item: Any) -> Event:
    if isinstance(item, BaseException):
        raise item
    event: Event = item
    return event
