"""Session: one conversation on an engine. Each turn is a stream of events."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, overload

from mlx_qwen3.cache.prompt_cache import common_prefix
from mlx_qwen3.engine.conversation import SUMMARISE
from mlx_qwen3.engine.request import TurnRequest
from mlx_qwen3.engine.session_state import CacheInfo, SessionState, check_text
from mlx_qwen3.engine.streams import Dispatch, Reply, call_back, collect, iterate_async
from mlx_qwen3.engine.tool_loop import (
    assistant_message,
    result_messages,
    run_tool_loop,
)
from mlx_qwen3.events import Done, Event, ToolResult
from mlx_qwen3.grammar import AnswerSchema
from mlx_qwen3.parsing import CollectedOutput
from mlx_qwen3.tokenizer.messages import without_surrogates

T = TypeVar("T")


class Session(SessionState):
    """One conversation on an engine. Make it with `engine.session(...)`.

    One turn runs at a time; sessions of one engine are decoded together. Every method that runs a turn
    raises MessageError if the conversation is too long for the model's context, SamplingError for a bad
    parameter, and EngineError if the engine is closed or a turn is running.
    """

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
        check_text("text", text)
        yield from self._converse(text, threading.Event(), AnswerSchema.of_any(schema))

    async def asend(self, text: str, schema: Any = None) -> AsyncIterator[Event]:
        """`send` for asyncio: the event loop is never blocked, and tools run on another thread."""
        check_text("text", text)
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
        check_text("text", text)
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
        check_text("prefix", prefix)
        messages = list(self.messages)
        self._jobs.prefill_ahead(lambda: self._certain_prefix(messages, prefix))

    def prepare(self, start: str = "") -> None:
        """The earlier name of `prefill_ahead`."""
        self.prefill_ahead(start)

    def cancel(self) -> None:
        """Stop the running turn, from any thread. The session stays usable."""
        self._jobs.cancel()

    def _converse(
        self, text: str, stop: threading.Event, schema: AnswerSchema | None = None
    ) -> Iterator[Event]:
        """A turn with all its calls of tools."""
        new_messages = [{"role": "user", "content": without_surrogates(text)}]

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


__all__ = ["CacheInfo", "Reply", "Session"]
