"""Session: one conversation on an engine. Each turn is a stream of events."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, overload

from mlx_qwen3.cache.prompt_cache import common_prefix
from mlx_qwen3.engine.conversation import SUMMARISE, Conversation
from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.engine.request import TurnRequest
from mlx_qwen3.engine.sampling_defaults import params_for
from mlx_qwen3.engine.session_cache import SessionCache
from mlx_qwen3.engine.session_jobs import SessionJobs
from mlx_qwen3.engine.streams import Dispatch, Reply, call_back, collect, iterate_async
from mlx_qwen3.engine.tool_loop import (
    ToolLoopOptions,
    allow_own,
    assistant_message,
    result_messages,
    run_tool_loop,
)
from mlx_qwen3.errors import MessageError
from mlx_qwen3.events import Done, Event, Stats, ToolResult
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.grammar import AnswerSchema
from mlx_qwen3.parsing import CollectedOutput
from mlx_qwen3.tokenizer.chat_template import Thinking
from mlx_qwen3.tools.base import Tool
from mlx_qwen3.tools.toolbox import Approve, ToolBox

T = TypeVar("T")


@dataclass(frozen=True)
class CacheInfo:
    """A session's KV cache. tokens: held. nbytes: of memory. saved_nbytes: that `save_cache` writes."""

    tokens: int
    nbytes: int
    saved_nbytes: int


class Session:
    """One conversation on an engine. Make it with `engine.session(...)`.

    One turn runs at a time; sessions of one engine are decoded together. Every method that runs a turn
    raises MessageError if the conversation is too long for the model's context, SamplingError for a bad
    parameter, and EngineError if the engine is closed or a turn is running.
    """

    def __init__(
        self,
        engine: EngineCore,
        *,
        system: str | None = None,
        thinking: bool = True,
        thinking_budget: int | None = None,
        sampling: SamplingParams | Mapping[str, Any] | None = None,
        tools: ToolBox | Iterable[Tool | Callable[..., Any]] = (),
        approve: Approve = allow_own,
        max_steps: int = 10,
    ):
        """Start a conversation; see `Engine.session` for the arguments."""
        if not isinstance(engine, EngineCore):
            raise MessageError(f"a session runs on an Engine, not on {type(engine).__name__}")
        _check_text("system", system, optional=True)
        _check_budget(thinking_budget)
        if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 0:
            raise MessageError(f"max_steps must be a whole number, not {max_steps!r}")
        self.conversation = Conversation([{"role": "system", "content": system}] if system else [])
        self.thinking = thinking
        self.thinking_budget = thinking_budget
        self.sampling = sampling
        self.last_stats: Stats | None = None
        toolbox = tools if isinstance(tools, ToolBox) else ToolBox(tools)
        self._tool_loop = ToolLoopOptions(toolbox, approve, max_steps)
        self._engine = engine
        self._cache = SessionCache(engine)
        self._jobs = SessionJobs(engine, self._cache)

    def __repr__(self) -> str:
        size = f"{len(self.messages)} messages, {self._cache.tokens} tokens cached"
        return f"<Session on {self._engine.name!r}: {size}>"

    # Turns

    def send(self, text: str, schema: Any = None) -> Iterator[Event]:
        """Send `text` and iterate over the events of the turn; Done comes last.

        Tools that the model calls are run between its steps, on the thread that iterates. Leaving the
        loop early cancels the turn; what was generated so far stays in the conversation.

        Args:
            text: The user's message.
            schema: A JSON schema as a mapping, a pydantic model, or a type pydantic can check. The answer
                is then JSON that follows it, and nothing else.

        Raises:
            SchemaError: The schema cannot be used.
        """
        _check_text("text", text)
        yield from self._converse(text, threading.Event(), AnswerSchema.of_any(schema))

    async def asend(self, text: str, schema: Any = None) -> AsyncIterator[Event]:
        """`send` for asyncio: the event loop is never blocked, and tools run on another thread."""
        _check_text("text", text)
        stop = threading.Event()
        events = self._converse(text, stop, AnswerSchema.of_any(schema))
        try:
            async for event in iterate_async(events, stop):
                yield event
        finally:
            self._jobs.cancel(stop)

    def post(
        self,
        text: str,
        on_event: Callable[[Event], object],
        on_error: Callable[[Exception], object] | None = None,
        dispatch: Dispatch | None = None,
        schema: Any = None,
    ) -> None:
        """Send `text` and return at once; callbacks get the events.

        Args:
            text: The user's message.
            on_event: Called with each event, Done last. An exception in it cancels the turn and goes to
                `on_error`.
            on_error: Called with what the turn raises.
            dispatch: Runs each callback on the thread it belongs to, such as PyObjC's `callAfter`.
                Without it they run on a thread of the turn's own.
            schema: As for `send`.
        """
        _check_text("text", text)
        self._jobs.refuse_if_busy()
        stop = threading.Event()
        events = self._converse(text, stop, AnswerSchema.of_any(schema))
        call_back(events, stop, on_event, on_error, dispatch)

    @overload
    def ask(self, text: str) -> Reply[None]: ...

    @overload
    def ask(self, text: str, schema: type[T]) -> Reply[T]: ...

    @overload
    def ask(self, text: str, schema: Any = None) -> Reply[Any]: ...

    def ask(self, text: str, schema: Any = None) -> Reply[Any]:
        """Send `text` and wait for the whole turn.

        Args:
            text: The user's message.
            schema: As for `send`. `Reply.parsed` is then the answer as a value: an instance of a pydantic
                model, or the JSON's value.

        Returns:
            Thinking, answer, tool calls and figures of the turn.
        """
        answer_schema = AnswerSchema.of_any(schema)
        reply = collect(self.send(text, answer_schema))
        return reply if answer_schema is None else replace(reply, parsed=answer_schema.parse(reply.answer))

    def retry(self) -> Iterator[Event]:
        """Take the latest turn back and answer the same message again."""
        yield from self.edit(None)

    def edit(self, text: str | None) -> Iterator[Event]:
        """Take the latest turn back and send `text` instead. If no answer comes of that, the turn stays."""
        self._jobs.refuse_if_busy()
        before, after = self.conversation, self.conversation.branch()
        latest, rest = after.take_back(), after.messages
        self.conversation = after
        try:
            yield from self.send(latest if text is None else text)
        finally:
            if after.messages is rest:
                self.conversation = before

    def compact(self) -> Iterator[Event]:
        """Have the model summarise the conversation and continue from the summary, to free context.

        A summary that was cancelled or cut off changes nothing.
        """
        request = self._request([*self.messages, {"role": "user", "content": SUMMARISE}])
        output = CollectedOutput()
        for event in self._jobs.run(request, threading.Event()):
            output.add(event)
            if isinstance(event, Done) and event.finish_reason == "stop" and output.answer.strip():
                self.conversation.go_on_from(output.answer.strip())
            yield event

    def prefill_ahead(self, prefix: str = "") -> None:
        """Prefill what the next prompt begins with for certain, while the user reads and types.

        Qwen3's template drops the thinking of earlier turns, so the answer has to be prefilled again
        without it. Returns at once, runs only while the engine has nothing else to do, and makes way for
        the next turn.

        Args:
            prefix: What the next message begins with for certain, such as a document.
        """
        _check_text("prefix", prefix)
        messages = list(self.messages)
        self._jobs.prefill_ahead(lambda: self._certain_prefix(messages, prefix))

    def prepare(self, start: str = "") -> None:
        """The earlier name of `prefill_ahead`."""
        self.prefill_ahead(start)

    def cancel(self) -> None:
        """Stop the running turn, from any thread. The session stays usable."""
        self._jobs.cancel()

    # The conversation

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation, as chat templates take it."""
        return self.conversation.messages

    @property
    def may_think(self) -> bool:
        """Whether the next turn thinks, by the switch, the budget, and what the checkpoint can do."""
        ability = self._engine.tokenizer.template.thinking
        if ability is Thinking.HYBRID:
            return bool(self.thinking) and self.thinking_budget != 0
        return ability is Thinking.ALWAYS

    @property
    def context(self) -> int:
        """Tokens the conversation may have before its positions are scaled further, if they can be."""
        return self._cache.context

    @property
    def cache_info(self) -> CacheInfo:
        """Tokens and bytes of the KV cache."""
        return CacheInfo(self._cache.tokens, self._cache.nbytes, self._cache.saved_nbytes)

    @property
    def tokens(self) -> int:
        """Tokens of the conversation that the KV cache holds."""
        return self._cache.tokens

    def clear(self) -> None:
        """Forget the conversation except for its system message."""
        self.conversation.clear()

    def branch(self) -> Session:
        """A session that starts with a copy of this conversation."""
        return self.move_to(self._engine)

    def move_to(self, engine: EngineCore) -> Session:
        """A session on another engine that starts with a copy of this conversation."""
        options = self._tool_loop
        twin = Session(
            engine,
            **self._settings(),
            tools=options.toolbox,
            approve=options.approve,
            max_steps=options.max_steps,
        )
        twin.conversation = self.conversation.branch()
        return twin

    def save(self, path: str | Path) -> None:
        """Write conversation and settings to a file; a killed save leaves the old file.

        Raises:
            MessageError: The file cannot be written.
        """
        self.conversation.save(Path(path), {**self._settings(), "model": self._engine.name})

    def save_cache(self, path: str | Path) -> None:
        """Write the KV cache to a file, for `load_cache` in a later run; a killed save leaves the old file.

        Raises:
            CacheError: There is no cache yet, or the file cannot be written.
        """
        self._jobs.refuse_if_busy()
        self._engine.call(lambda: self._cache.save(Path(path)))

    def load_cache(self, path: str | Path) -> None:
        """Load what `save_cache` wrote: the part of the conversation it holds is not prefilled again.

        Raises:
            CacheError: The file is damaged, or was made with another model, quantization, template, rope or
                kind of cache. The session is then as before.
        """
        self._jobs.refuse_if_busy()
        self._engine.call(lambda: self._cache.load(Path(path)))

    @classmethod
    def load(
        cls,
        engine: EngineCore,
        path: str | Path,
        *,
        system: str | None = None,
        thinking: bool | None = None,
        thinking_budget: int | None = None,
        sampling: SamplingParams | Mapping[str, Any] | None = None,
        tools: ToolBox | Iterable[Tool | Callable[..., Any]] = (),
        approve: Approve = allow_own,
        max_steps: int = 10,
    ) -> Session:
        """The session saved at `path`. Arguments that are given win over what was saved.

        Args:
            engine: Where it is to run.
            path: What `save` wrote.
            system: A system message in place of the one saved.
            thinking: As for `Engine.session`, and so are those below. Tools are not saved.

        Raises:
            MessageError: The file is missing, broken or something else.
        """
        conversation, saved = Conversation.load(Path(path))
        session = cls(
            engine,
            thinking=saved.get("thinking", True) if thinking is None else thinking,
            thinking_budget=saved.get("thinking_budget") if thinking_budget is None else thinking_budget,
            sampling=saved.get("sampling") if sampling is None else sampling,
            tools=tools,
            approve=approve,
            max_steps=max_steps,
        )
        session.conversation = conversation
        if system is not None:
            session.conversation.system = system
        return session

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]] | None = None) -> list[int]:
        """The ids of the prompt for `messages`, by default for the conversation so far."""
        return self._engine.tokenizer.apply_chat_template(
            list(self.messages if messages is None else messages),
            tools=self._tool_loop.toolbox.definitions() or None,
            enable_thinking=self.may_think,
        )

    def params(self) -> SamplingParams:
        """The sampling parameters of the next turn: the preset of its mode, and what was set."""
        return params_for(self._engine, self.may_think, self.sampling)

    @property
    def sampling_values(self) -> dict[str, Any]:
        """The sampling parameters that were set, whatever the mode."""
        if isinstance(self.sampling, SamplingParams):
            return asdict(self.sampling)
        return dict(self.sampling or {})

    def _settings(self) -> dict[str, Any]:
        return {
            "thinking": self.thinking,
            "thinking_budget": self.thinking_budget,
            "sampling": self.sampling_values or None,
        }

    def _converse(
        self, text: str, stop: threading.Event, schema: AnswerSchema | None = None
    ) -> Iterator[Event]:
        """A turn with all its calls of tools."""
        new_messages = [{"role": "user", "content": text}]

        def run_turn() -> Iterator[Event]:
            nonlocal new_messages
            messages, new_messages = [*self.messages, *new_messages], []
            yield from self._run_turn(messages, stop, schema)

        def add_results(results: Sequence[ToolResult]) -> None:
            self.conversation.messages = [*self.messages, *result_messages(results)]

        for event in run_tool_loop(run_turn, add_results, self._tool_loop, stop.is_set):
            if isinstance(event, Done):
                self.last_stats = event.stats
            yield event

    def _run_turn(
        self, messages: list[dict[str, Any]], stop: threading.Event, schema: AnswerSchema | None
    ) -> Iterator[Event]:
        """One model turn. The conversation changes only if the model generated something."""
        output = CollectedOutput()

        def record(event: Event) -> None:
            output.add(event)
            if isinstance(event, Done):
                is_empty = not (output.thinking or output.answer or output.tool_calls)
                if event.finish_reason != "cancelled" or not is_empty:
                    self.conversation.messages = [*messages, assistant_message(output)]

        for event in self._jobs.run(self._request(messages, schema), stop, on_late=record):
            record(event)
            yield event

    def _request(
        self, messages: Sequence[Mapping[str, Any]], schema: AnswerSchema | None = None
    ) -> TurnRequest:
        self._jobs.refuse_if_busy()
        asked_at = time.perf_counter()
        return TurnRequest(
            prompt_ids=self.prompt_ids(schema.add_to(messages) if schema else messages),
            params=self.params(),
            thinking_budget=self.thinking_budget,
            schema=schema.schema if schema else None,
            tool_schemas=self._tool_loop.toolbox.schemas,
            asked_at=asked_at,
        )

    def _certain_prefix(self, messages: list[dict[str, Any]], prefix: str) -> list[int]:
        """The ids that the next prompt begins with, whatever the user writes after `prefix`."""
        first, second = (
            self.prompt_ids([*messages, {"role": "user", "content": prefix + text}]) for text in "ab"
        )
        return first[: common_prefix(first, second)]


def _check_text(name: str, text: object, optional: bool = False) -> None:
    if not isinstance(text, str) and not (optional and text is None):
        raise MessageError(f"{name} must be text, not {type(text).__name__}")


def _check_budget(budget: object) -> None:
    is_number = isinstance(budget, int) and not isinstance(budget, bool)
    if budget is not None and not (is_number and budget >= 0):  # type: ignore[operator]
        raise MessageError(f"thinking_budget must be a number of tokens or None, not {budget!r}")


__all__ = ["CacheInfo", "Reply", "Session"]
