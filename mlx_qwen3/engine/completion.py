"""Completion: the text that follows a text, without a template or a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.engine.request import Job, Sink, TurnRequest
from mlx_qwen3.engine.session_cache import SessionCache
from mlx_qwen3.engine.streams import iterate
from mlx_qwen3.engine.turn import TurnSequence
from mlx_qwen3.errors import EngineError, MessageError, PromptTooLongError
from mlx_qwen3.events import AnswerDelta, Done, Event, FinishReason, Logprobs, Stats
from mlx_qwen3.generation.params import SamplingParams


class Completion:
    """Iterate over it for the text as it comes; `text` waits for all of it.

    Attributes:
        logprobs: Those of the tokens generated so far, where `SamplingParams.logprobs` asks for them.
    """

    def __init__(
        self,
        core: EngineCore,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        adapter: str | None = None,
    ):
        """adapter: as of `Engine.session`. Raises MessageError, EngineError."""
        check_prompt(prompt_ids, core.longest)
        self._cache = SessionCache(core, adapter)
        self.logprobs: list[Logprobs] = []
        self._core, self._request = core, TurnRequest(prompt_ids, params, is_completion=True)
        self._job: Job | None = None
        self._is_cancelled = False
        self._pieces: list[str] = []
        self._stats: Stats | None = None
        self._events = iterate(self._start)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for event in self.events():
            if isinstance(event, AnswerDelta):
                return event.text
        raise StopIteration

    def events(self) -> Iterator[Event]:
        """The events as they come, in place of their text: PromptProgress, AnswerDelta, Logprobs, Done."""
        for event in self._events:
            if isinstance(event, AnswerDelta):
                self._pieces.append(event.text)
            elif isinstance(event, Logprobs):
                self.logprobs.append(event)
            elif isinstance(event, Done):
                self._stats = event.stats
            yield event

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return self._job.generated if self._job is not None else 0

    @property
    def text(self) -> str:
        """The whole text, waited for."""
        for _ in self:
            pass
        return "".join(self._pieces)

    @property
    def stats(self) -> Stats:
        """Figures of the completion, waited for."""
        for _ in self:
            pass
        if self._stats is None:
            raise EngineError("the completion was left before it ended")
        return self._stats

    @property
    def finish_reason(self) -> FinishReason:
        """Why the text ended, waited for."""
        return self.stats.finish_reason

    def cancel(self) -> None:
        """Stop, from any thread."""
        self._is_cancelled = True
        if self._job is not None:
            self._job.cancel()

    def __repr__(self) -> str:
        return f"<Completion: {len(''.join(self._pieces))} characters so far>"

    def _start(self, sink: Sink) -> Job:
        self._job = job = Job(sink)
        if self._is_cancelled:
            job.cancel()
        self._core.submit(TurnSequence(self._core, self._request, self._cache, job))
        return job


def check_prompt(ids: Sequence[int], context: int) -> None:
    """Raises MessageError for a prompt that is empty, or leaves no room in a context of so many tokens."""
    if not ids:
        raise MessageError("the prompt is empty; there is nothing to complete")
    if len(ids) >= context:
        raise PromptTooLongError(f"the prompt has {len(ids):,} tokens and the context holds {context:,}")
