"""What a session remembers between turns, and the one job it may have on the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from mlx_qwen3.engine.conversation import Conversation
from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.engine.loading.adapters import NONE
from mlx_qwen3.engine.request import Job, PrefillRequest, Sink, TurnRequest, ignore, params_for
from mlx_qwen3.engine.session_cache import SessionCache
from mlx_qwen3.engine.streams import iterate
from mlx_qwen3.engine.tool_loop import ToolLoopOptions, allow_own
from mlx_qwen3.engine.turn import PrefillSequence, TurnSequence
from mlx_qwen3.errors import EngineError, MessageError
from mlx_qwen3.events import Event, Stats
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.tokenizer.chat_template import Thinking
from mlx_qwen3.tools.base import Tool
from mlx_qwen3.tools.toolbox import Approve, ToolBox


@dataclass(frozen=True)
class CacheInfo:
    """A session's KV cache. tokens: held. nbytes: of memory. saved_nbytes: that `save_cache` writes."""

    tokens: int
    nbytes: int
    saved_nbytes: int


class SessionJobs:
    """The job of a session that runs, or ran last."""

    def __init__(self, core: EngineCore, cache: SessionCache):
        self.job: Job | None = None
        self._core, self._cache = core, cache
        self._is_background = False
        self._stop = threading.Event()  # of the turn that runs

    def run(
        self, request: TurnRequest, stop: threading.Event, on_late: Callable[[Event], object] | None = None
    ) -> Iterator[Event]:
        """Run one model turn and yield its events. If `stop` is set already, it ends at once.

        on_late: gets the events that come after the caller has left the loop.
        """
        self.refuse_if_busy()

        def start(sink: Sink) -> Job:
            self._stop, self._is_background = stop, False
            self.job = job = Job(sink)
            if stop.is_set():
                job.cancel()
            try:
                self._core.submit(TurnSequence(self._core, request, self._cache, job))
            except EngineError:
                job.finished.set()
                raise
            return job

        yield from iterate(start, on_late)

    def prefill_ahead(self, prefix: Callable[[], list[int]]) -> None:
        """Prefill the ids of `prefix`, computed on a thread of its own, unless a turn is running."""
        if self.job is not None and not self.job.finished.is_set():
            if not self._is_background:
                return
            self.job.cancel()
        self._is_background = True
        self.job = job = Job(ignore)

        def submit() -> None:
            try:
                ids = prefix()
                is_over = job.is_cancelled() or not ids or len(ids) >= self._cache.context
                if not is_over:
                    self._core.submit(PrefillSequence(PrefillRequest(ids), self._cache, job))
            except Exception:  # noqa: BLE001  # the next turn meets the same error, and reports it
                is_over = True
            if is_over:
                job.finish(None)

        threading.Thread(target=submit, name="mlx_qwen3 prefill", daemon=True).start()

    def cancel(self, stop: threading.Event | None = None) -> None:
        """Stop the turn that was given `stop`, or the one that runs."""
        stop = self._stop if stop is None else stop
        stop.set()
        if self.job is not None and self._stop is stop:
            self.job.cancel()

    def refuse_if_busy(self) -> None:
        """Wait for a job that is ending. Raises EngineError if a turn is running."""
        job = self.job
        if job is None or job.finished.is_set():
            return
        if self._is_background:
            job.cancel()
        if not job.is_cancelled():
            raise EngineError("this session is still answering; cancel that turn first")
        job.wait()


class SessionState:
    """What a session remembers between turns."""

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
        adapter: str | None = None,
    ):
        """Start a conversation; see `Engine.session` for the arguments."""
        if not isinstance(engine, EngineCore):
            raise MessageError(f"a session runs on an Engine, not on {type(engine).__name__}")
        check_text("system", system, optional=True)
        _check_budget(thinking_budget)
        if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 0:
            raise MessageError(f"max_steps must be a whole number, not {max_steps!r}")
        self.conversation = Conversation()
        self.conversation.system = system
        self.thinking = thinking
        self.thinking_budget = thinking_budget
        self.sampling = sampling
        self.last_stats: Stats | None = None
        toolbox = tools if isinstance(tools, ToolBox) else ToolBox(tools)
        self._tool_loop = ToolLoopOptions(toolbox, approve, max_steps)
        self._engine = engine
        self._cache = SessionCache(engine, adapter)
        engine.sessions.add(self._cache)
        self._jobs = SessionJobs(engine, self._cache)

    def __repr__(self) -> str:
        size = f"{len(self.messages)} messages, {self._cache.tokens} tokens cached"
        return f"<Session on {self._engine.name!r}: {size}>"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation, as chat templates take it."""
        return self.conversation.messages

    @property
    def adapter(self) -> str:
        """The name of the adapter that the model answers with; `none` is the model alone. It can be set.

        Raises:
            EngineError: There is no such adapter, or a turn is running.
        """
        return self._cache.adapter or NONE

    @adapter.setter
    def adapter(self, name: str | None) -> None:
        self._jobs.refuse_if_busy()
        self._engine.call(lambda: self._cache.use_adapter(name))

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

    def branch(self) -> Self:
        """A session that starts with a copy of this conversation."""
        return self.move_to(self._engine)

    def move_to(self, engine: EngineCore) -> Self:
        """A session on another engine that starts with a copy of this conversation."""
        options = self._tool_loop
        twin = type(self)(
            engine,
            **self._settings(),
            tools=options.toolbox,
            approve=options.approve,
            max_steps=options.max_steps,
            adapter=self.adapter if engine is self._engine else None,  # names mean nothing elsewhere
        )
        twin.conversation = self.conversation.branch()
        return twin

    def save(self, path: str | Path) -> None:
        """Write conversation and settings to a file; a killed save leaves the old file.

        Raises:
            MessageError: The file cannot be written.
        """
        self.conversation.save(
            Path(path), {**self._settings(), "model": self._engine.name, "tokens": self.tokens}
        )

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
        adapter: str | None = None,
    ) -> Self:
        """The session saved at `path`. Arguments that are given win over what was saved.

        Args:
            engine: Where it is to run.
            path: What `save` wrote.
            system: A system message in place of the one saved.
            thinking: As for `Engine.session`, and so are those below. Tools and adapter are not
                saved.

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
            adapter=adapter,
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
        return params_for(self._engine.tokenizer, self.may_think, self.sampling)

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


def check_text(name: str, text: object, optional: bool = False) -> None:
    if not isinstance(text, str) and not (optional and text is None):
        raise MessageError(f"{name} must be text, not {type(text).__name__}")


def _check_budget(budget: object) -> None:
    is_number = isinstance(budget, int) and not isinstance(budget, bool)
    if budget is not None and not (is_number and budget >= 0):  # type: ignore[operator]
        raise MessageError(f"thinking_budget must be a number of tokens or None, not {budget!r}")
