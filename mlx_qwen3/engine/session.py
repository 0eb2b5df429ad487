"""A conversation on an engine: what was said, how the model thinks; each turn a stream of events."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_qwen3.cache.prompt_cache import common_prefix
from mlx_qwen3.engine.conversation import SUMMARISE, Conversation
from mlx_qwen3.engine.job import Job, Steps
from mlx_qwen3.engine.session_cache import Slot
from mlx_qwen3.engine.session_jobs import Lane
from mlx_qwen3.engine.streams import Dispatch, Reply, call_back, collect, listen_async
from mlx_qwen3.engine.tool_loop import AgentOptions, allow_own, assistant_message, result_messages, run_agent
from mlx_qwen3.engine.turn import Turn, TurnRequest
from mlx_qwen3.errors import MessageError
from mlx_qwen3.events import Done, Event, Stats, ToolResult
from mlx_qwen3.generation.sampling import SamplingParams
from mlx_qwen3.grammar import AnswerSchema, constrain
from mlx_qwen3.tokenizer.chat_template import Thinking
from mlx_qwen3.tools.base import Tool
from mlx_qwen3.tools.toolbox import Approve, ToolBox

if TYPE_CHECKING:
    from mlx_qwen3.engine.engine import Engine

__all__ = ["Reply", "Session"]


class Session:
    """One conversation on an engine. Make it with `engine.session(...)`.

    system: a system message. thinking: the hard switch, True lets the model think. Where it may,
    `/think` and `/no_think` inside a message switch it from there on. thinking_budget: the most
    tokens it may think for, None without limit. sampling: SamplingParams, or a mapping of the
    values that differ from Qwen's preset for the mode.

    tools: what the model may call: typed functions, tools, or a ToolBox. approve: asked before each
    call; by default the program's own functions are allowed and the tools of MCP servers are not.
    max_steps: how often in one turn it may call tools and read what they return.

    One turn runs at a time; sessions of one engine take turns. What makes a turn (`send`, `retry`,
    `edit`, `compact`) raises MessageError if the conversation is too long for the model's context,
    SamplingError for a bad parameter and EngineError if the engine is closed.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        system: str | None = None,
        thinking: bool = True,
        thinking_budget: int | None = None,
        sampling: SamplingParams | Mapping[str, Any] | None = None,
        tools: ToolBox | Iterable[Tool | Callable[..., Any]] = (),
        approve: Approve = allow_own,
        max_steps: int = 10,
    ):
        if thinking_budget is not None and thinking_budget < 0:
            raise MessageError(f"the thinking budget counts tokens, it cannot be {thinking_budget}")
        self.conversation = Conversation([{"role": "system", "content": system}] if system else [])
        self.thinking = thinking
        self.thinking_budget = thinking_budget
        self.sampling = sampling
        self.last_stats: Stats | None = None
        toolbox = tools if isinstance(tools, ToolBox) else ToolBox(tools)
        self._agent = AgentOptions(toolbox, approve, max_steps)
        self._engine = engine
        self._slot = Slot(engine)
        self._lane = Lane(engine)

    # Turns

    def send(self, text: str, schema: Any = None) -> Iterator[Event]:
        """Say `text` and iterate over the events of the turn, the last of them Done.

        schema: a JSON schema as a mapping, or a pydantic model; the answer is then JSON in that form, and
        nothing else. Raises SchemaError if it cannot be used.

        Tools that the model calls are run between its steps, on the thread that iterates. Leaving the
        loop early cancels the turn; what was said so far stays in the conversation.
        """
        yield from self._converse(text, threading.Event(), AnswerSchema.of_any(schema))

    async def asend(self, text: str, schema: Any = None) -> AsyncIterator[Event]:
        """`send` for asyncio: the loop is never blocked, and tools run on a thread of their own."""
        stop = threading.Event()
        events = self._converse(text, stop, AnswerSchema.of_any(schema))
        try:
            async for event in listen_async(events, stop):
                yield event
        finally:
            self._lane.cancel(stop)

    def post(
        self,
        text: str,
        on_event: Callable[[Event], object],
        on_error: Callable[[Exception], object] | None = None,
        dispatch: Dispatch | None = None,
        schema: Any = None,
    ) -> None:
        """Say `text` and return at once; `on_event` is called with each event, Done last.

        dispatch: brings a call to the thread it belongs on, such as PyObjC's `callAfter`; without it
        the callbacks run on a thread of the turn's own. An error goes to `on_error`. schema: as for `send`.
        """
        self._lane.refuse_if_busy()
        stop = threading.Event()
        events = self._converse(text, stop, AnswerSchema.of_any(schema))
        call_back(events, stop, on_event, on_error, dispatch)

    def ask(self, text: str, schema: Any = None) -> Reply:
        """Say `text` and wait for the whole turn. schema: as for `send`; `Reply.parsed` is then its value."""
        form = AnswerSchema.of_any(schema)
        reply = collect(self.send(text, form))
        return reply if form is None else replace(reply, parsed=form.parse(reply.answer))

    def retry(self) -> Iterator[Event]:
        """Take the latest turn back and answer the same message anew."""
        yield from self.edit(None)

    def edit(self, text: str | None) -> Iterator[Event]:
        """Take the latest turn back and say `text` instead; if nothing comes of that, it stays."""
        self._lane.refuse_if_busy()
        before, after = self.conversation, self.conversation.branch()
        said, rest = after.take_back(), after.messages
        self.conversation = after
        try:
            yield from self.send(said if text is None else text)
        finally:
            if after.messages is rest:
                self.conversation = before

    def compact(self) -> Iterator[Event]:
        """Have the model summarise the conversation and go on from the summary, to free context.

        A summary that was cancelled or cut off changes nothing.
        """
        yield from self._lane.play(self._summarise, threading.Event())

    def prepare(self, start: str = "") -> None:
        """Bring the cache in line with the next prompt while the user reads and types.

        Qwen3's template drops the thinking of earlier turns, so the answer has to be read again
        without it; done now, the next turn reads the user's words only. start: what the next message
        is known to begin with, such as a document. Returns at once, and makes way for the next turn.
        """
        self._lane.play_aside(lambda job: self._slot.align(job, lambda: self._certain_prefix(start)))

    def cancel(self) -> None:
        """Stop the running turn, from any thread; the session stays usable."""
        self._lane.cancel()

    # The conversation

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What was said, as chat templates take it."""
        return self.conversation.messages

    @property
    def may_think(self) -> bool:
        """Whether the next turn thinks, by the switch, the budget, and what the checkpoint can do."""
        ability = self._engine.tokenizer.template.thinking
        if ability is Thinking.HYBRID:
            return self.thinking and self.thinking_budget != 0
        return ability is Thinking.ALWAYS

    @property
    def tokens(self) -> int:
        """Tokens of the conversation that the cache holds."""
        return self._slot.tokens

    @property
    def context(self) -> int:
        """Tokens the conversation may have before its positions are scaled further, if they can be."""
        return self._slot.context

    @property
    def cache_bytes(self) -> int:
        """Bytes the cache takes."""
        return self._slot.nbytes

    @property
    def saved_cache_bytes(self) -> int:
        """Bytes that `save_cache` writes."""
        return self._slot.saved_nbytes

    def clear(self) -> None:
        """Forget the conversation, all but its system message."""
        self.conversation.clear()

    def branch(self) -> Session:
        """A session that starts with a copy of this conversation and goes its own way."""
        return self.move_to(self._engine)

    def move_to(self, engine: Engine) -> Session:
        """A session on another engine that goes on with a copy of this conversation."""
        agent = self._agent
        twin = Session(
            engine,
            **self._settings(),
            tools=agent.toolbox,
            approve=agent.approve,
            max_steps=agent.max_steps,
        )
        twin.conversation = self.conversation.branch()
        return twin

    def save(self, path: str | Path) -> None:
        """Write conversation and settings to a file. Raises MessageError if that cannot be done."""
        self.conversation.save(Path(path), {**self._settings(), "model": self._engine.name})

    def save_cache(self, path: str | Path) -> None:
        """Write what the model has read of the conversation to a file, for `load_cache` of a later run.

        A killed save leaves the old file. Raises CacheError if nothing was read or it cannot be written.
        """
        self._lane.refuse_if_busy()
        self._engine.call(lambda: self._slot.save(Path(path)))

    def load_cache(self, path: str | Path) -> None:
        """Take what `save_cache` wrote: what it holds of the conversation is not read anew.

        Raises CacheError for a file that is damaged, or made with another model, quantization,
        template, rope or kind of cache; the session is then as before.
        """
        self._lane.refuse_if_busy()
        self._engine.call(lambda: self._slot.load(Path(path)))

    @classmethod
    def load(cls, engine: Engine, path: str | Path, **options: Any) -> Session:
        """The session saved at `path`. `options` win over the settings saved; tools are not saved.

        Raises MessageError if that is no saved conversation.
        """
        conversation, settings = Conversation.load(Path(path))
        known = ("thinking", "thinking_budget", "sampling")
        options = {name: settings[name] for name in known if name in settings} | options
        session = cls(engine, **options)
        session.conversation = conversation
        return session

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]] | None = None) -> list[int]:
        """The ids the model would be given for `messages`, by default the conversation so far."""
        return self._engine.tokenizer.apply_chat_template(
            list(self.messages if messages is None else messages),
            tools=self._agent.toolbox.definitions() or None,
            enable_thinking=self.may_think,
        )

    def params(self) -> SamplingParams:
        """The sampling parameters of the next turn: the preset of its mode, and what was set."""
        if isinstance(self.sampling, SamplingParams):
            return self.sampling
        return SamplingParams.for_mode(self.may_think).with_values(**self.sampling_values)

    @property
    def sampling_values(self) -> dict[str, Any]:
        """The sampling parameters that were set, whatever the mode."""
        chosen = asdict(self.sampling) if isinstance(self.sampling, SamplingParams) else self.sampling
        return dict(chosen or {})

    def _settings(self) -> dict[str, Any]:
        return {
            "thinking": self.thinking,
            "thinking_budget": self.thinking_budget,
            "sampling": self.sampling_values or None,
        }

    # On the caller's thread

    def _converse(
        self, text: str, stop: threading.Event, form: AnswerSchema | None = None
    ) -> Iterator[Event]:
        """A turn with all its calls of tools."""
        said = [{"role": "user", "content": text}]

        def play() -> Iterator[Event]:
            nonlocal said
            messages, said = said, []
            yield from self._lane.play(lambda job: self._say(job, messages, form), stop)

        def answer_calls(results: Sequence[ToolResult]) -> None:
            self.conversation.messages = [*self.messages, *result_messages(results)]

        for event in run_agent(play, answer_calls, self._agent, stop.is_set):
            if isinstance(event, Done):
                self.last_stats = event.stats
            yield event

    # On the engine's thread

    def _say(self, job: Job, said: list[dict[str, Any]], form: AnswerSchema | None) -> Steps:
        """One turn after what was `said`. The conversation changes only if the model said something."""
        messages = [*self.messages, *said]

        def keep(turn: Turn, done: Done) -> None:
            if done.finish_reason != "cancelled" or turn.thinking or turn.answer or turn.tool_calls:
                self.conversation.messages = [*messages, assistant_message(turn)]

        return self._slot.turn(job, lambda: self._request(job, messages, form), keep)

    def _summarise(self, job: Job) -> Steps:
        messages = [*self.messages, {"role": "user", "content": SUMMARISE}]

        def keep(turn: Turn, done: Done) -> None:
            if done.finish_reason == "stop" and turn.answer.strip():
                self.conversation.go_on_from(turn.answer.strip())

        return self._slot.turn(job, lambda: self._request(job, messages), keep)

    def _request(
        self, job: Job, messages: list[dict[str, Any]], form: AnswerSchema | None = None
    ) -> TurnRequest:
        engine, schemas = self._engine, self._agent.toolbox.schemas
        vocab_size = engine.model.args.vocab_size
        ids = self.prompt_ids(form.asking(messages) if form else messages)
        return TurnRequest(
            prompt_ids=ids,
            params=self.params(),
            vocab_size=vocab_size,
            context=engine.context,
            asked_at=job.asked_at,
            thinking_budget=self.thinking_budget,
            tool_schemas=schemas,
            grammar=constrain(engine.tokenizer, vocab_size, ids, form, schemas),
        )

    def _certain_prefix(self, start: str) -> list[int]:
        """The ids that the next prompt starts with, whatever the user says after `start`."""
        one, other = (
            self.prompt_ids([*self.messages, {"role": "user", "content": start + text}]) for text in "ab"
        )
        return one[: common_prefix(one, other)]
