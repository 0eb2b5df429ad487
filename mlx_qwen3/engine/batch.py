"""Batches: many prompts at once on an engine."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_qwen3.engine.completion import check_prompt
from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.engine.request import Job, TurnRequest, params_for
from mlx_qwen3.engine.session_cache import SessionCache
from mlx_qwen3.engine.streams import Reply, collect
from mlx_qwen3.engine.turn import TurnSequence
from mlx_qwen3.errors import CacheError, MessageError, Qwen3Error, SamplingError, SchemaError
from mlx_qwen3.events import Done, FinishReason, Logprobs
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sequence import Priority
from mlx_qwen3.grammar import AnswerSchema, begun_answer
from mlx_qwen3.tokenizer.messages import Message

# Requests submitted beyond those that run, so that the next one is there when one ends.
SUBMITTED_AHEAD = 2
MOST_CHOICES = 128


@dataclass(frozen=True)
class BatchRequest:
    """A text to complete (`prompt`), or a conversation to answer (`messages`): one of the two.

    Attributes:
        prompt: A text to complete.
        messages: A conversation to answer.
        id: The caller's name for the request, returned with its results.
        sampling: What differs from the batch's parameters, such as max_tokens or seed.
        thinking, thinking_budget, schema: As of a session, for conversations; None is the batch's.
        n: How many results to generate; the prompt is prefilled once.
        continue_final_message: The last message is the beginning of the answer, which is continued.
        adapter: As of `Engine.session`; None is the batch's.
    """

    prompt: str | None = None
    messages: Sequence[Message] | None = None
    id: Any = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    thinking: bool | None = None
    thinking_budget: int | None = None
    schema: Any = None
    n: int = 1
    continue_final_message: bool = False
    adapter: str | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise MessageError("a request has either a prompt or messages")
        if self.prompt is not None and not isinstance(self.prompt, str):
            raise MessageError(f"prompt must be text, not {type(self.prompt).__name__}")
        budget = self.thinking_budget
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 0):
            raise MessageError(f"thinking_budget must be a number of tokens, not {budget!r}")
        if not isinstance(self.sampling, Mapping):
            raise SamplingError(f"sampling must be a mapping, not {type(self.sampling).__name__}")
        if isinstance(self.n, bool) or not isinstance(self.n, int) or not 1 <= self.n <= MOST_CHOICES:
            raise SamplingError(f"n must be between 1 and {MOST_CHOICES}, not {self.n!r}")


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of request number `index`.

    Attributes:
        index: The place of the request in the batch.
        id: The caller's name for it.
        text: What follows the prompt, or the answer to the messages.
        thinking: The thinking before the answer.
        finish_reason: Why it ended; None if nothing was generated.
        prompt_tokens, completion_tokens, thinking_tokens: Counts.
        parsed: The answer as a value, where it has a schema.
        error: Why nothing was generated, or why a pydantic model refused the answer.
        choice: Which of the request's `n` results this is.
        stop_string: The stop string that ended it, if one did.
        logprobs: Of each token, where asked for.
    """

    index: int
    id: Any
    text: str = ""
    thinking: str = ""
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    thinking_tokens: int = 0
    parsed: Any = None
    error: str | None = None
    choice: int = 0
    stop_string: str | None = None
    logprobs: tuple[Logprobs, ...] = ()


Prompt = str | Sequence[Message] | BatchRequest
"""A text to complete, a conversation to answer, or either with settings of its own."""


@dataclass(frozen=True)
class BatchOptions:
    """What holds for all requests of a batch; see `Engine.generate_batch`."""

    sampling: SamplingParams | Mapping[str, Any] | None = None
    thinking: bool = True
    thinking_budget: int | None = None
    control_tokens: bool = False
    batch_size: int | None = None
    schema: AnswerSchema | None = None
    adapter: str | None = None


@dataclass(frozen=True)
class _Task:
    """A request that can run, and which of its results this is.

    begun: the answer's part in the prompt. adapter: as of `Engine.session`.
    """

    index: int
    request: BatchRequest
    turn: TurnRequest
    schema: AnswerSchema | None
    choice: int
    begun: str = ""
    adapter: str | None = None


class BatchRun:
    """Iterates over the results of a batch, each as soon as it is complete, in no particular order.

    Leaving the loop early, or `cancel` from any thread, stops the batch. Requests that were not finished
    then give no result.

    Attributes:
        total: How many results there will be.
    """

    def __init__(self, core: EngineCore, prompts: Iterable[Prompt], options: BatchOptions):
        if isinstance(prompts, str):
            raise MessageError("a batch is a list of prompts, not one text")
        size = options.batch_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise CacheError(f"batch_size must be at least 1, not {size!r}")
        params_for(core.tokenizer, thinking=True, sampling=options.sampling)  # raises what concerns all
        self._core = core
        tasks: list[_Task] = []
        self._results: queue.SimpleQueue[BatchResult | Exception | None] = queue.SimpleQueue()
        self.total = 0
        for index, prompt in enumerate(prompts):
            request = _as_request(prompt)
            self.total += request.n
            try:
                tasks += _tasks(index, request, core, options)
            except Qwen3Error as error:
                self.total -= request.n - 1
                self._results.put(BatchResult(index, request.id, error=str(error)))
        # The longest first, so that it does not run on alone at the end.
        self._waiting = deque(sorted(tasks, key=lambda task: -len(task.turn.prompt_ids)))
        self._size = size
        self._jobs: dict[int, Job] = {}
        self._given = 0
        self._finished_tokens = 0
        self._is_cancelled = self._is_started = False

    def __iter__(self) -> Iterator[BatchResult]:
        return self

    def __next__(self) -> BatchResult:
        if not self._is_started:
            self._is_started = True
            ahead = self._size or self._core.scheduler.size + SUBMITTED_AHEAD
            for _ in range(ahead):
                self._submit_next()
        while self._given < self.total:
            if self._is_cancelled and not self._jobs and self._results.empty():
                break
            result = self._results.get()
            if isinstance(result, Exception):
                self.cancel()
                raise result
            if result is not None:
                self._given += 1
                return result
        raise StopIteration

    @property
    def tokens(self) -> int:
        """Tokens generated so far, of all requests together."""
        return self._finished_tokens + sum(job.generated for job in list(self._jobs.values()))

    def cancel(self) -> None:
        """Stop after the present pass."""
        self._is_cancelled = True
        for job in list(self._jobs.values()):
            job.cancel()
        self._results.put(None)

    def __del__(self) -> None:
        if getattr(self, "_jobs", None):
            self.cancel()

    def _submit_next(self) -> None:
        if not self._waiting or self._is_cancelled:
            return
        task = self._waiting.popleft()
        events: list[Any] = []

        def sink(item: Any) -> None:
            if item is not Job.END and not isinstance(item, BaseException):
                events.append(item)
                return
            self._jobs.pop(id(task), None)
            self._finished_tokens += job.generated
            self._results.put(_result(task, events, item))
            self._submit_next()

        job = Job(sink)
        self._jobs[id(task)] = job
        try:
            self._core.submit(
                TurnSequence(self._core, task.turn, SessionCache(self._core, task.adapter), job)
            )
        except Qwen3Error as error:
            self._jobs.pop(id(task), None)
            self._results.put(error)


def _result(task: _Task, events: list[Any], end: object) -> BatchResult | Exception | None:
    """The result of a task that has ended; None if it was cancelled."""
    if isinstance(end, Qwen3Error) and not isinstance(end, MessageError | SchemaError):
        return end
    if isinstance(end, Exception):
        return BatchResult(task.index, task.request.id, error=str(end), choice=task.choice)
    if not events or not isinstance(events[-1], Done) or events[-1].finish_reason == "cancelled":
        return None
    reply = collect(iter(events))
    parsed: dict[str, Any] = {}
    if task.schema is not None:
        try:
            parsed = {"parsed": task.schema.parse(task.begun + reply.answer)}
        except SchemaError as error:
            parsed = {"error": str(error)}
    return _as_result(task, reply, parsed)


def _as_result(task: _Task, reply: Reply[Any], parsed: Mapping[str, Any]) -> BatchResult:
    return BatchResult(
        task.index,
        task.request.id,
        text=reply.answer,
        thinking=reply.thinking,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.stats.prompt_tokens,
        completion_tokens=reply.stats.generated_tokens,
        thinking_tokens=reply.stats.thinking_tokens,
        choice=task.choice,
        stop_string=reply.stats.stop_string,
        logprobs=tuple(reply.logprobs),
        **parsed,
    )


def _as_request(prompt: Prompt) -> BatchRequest:
    if isinstance(prompt, BatchRequest):
        return prompt
    return BatchRequest(prompt=prompt) if isinstance(prompt, str) else BatchRequest(messages=prompt)


def _tasks(index: int, request: BatchRequest, core: EngineCore, options: BatchOptions) -> list[_Task]:
    """The request, once for each result. Raises what is wrong with it."""
    budget = options.thinking_budget if request.thinking_budget is None else request.thinking_budget
    thinking = options.thinking if request.thinking is None else request.thinking
    thinking = bool(thinking) and budget != 0 and request.messages is not None
    schema = AnswerSchema.of_any(request.schema) or options.schema
    if schema is not None and request.messages is None:
        raise MessageError("a schema is for answers to messages, and this is a text to complete")
    if request.messages is not None:
        messages = schema.add_to(request.messages) if schema else request.messages
        ids = core.tokenizer.apply_chat_template(
            messages, enable_thinking=thinking, continue_final_message=request.continue_final_message
        )
    else:
        ids = core.tokenizer.encode(request.prompt or "", control_tokens=options.control_tokens)
    check_prompt(ids, core.longest)
    params = params_for(core.tokenizer, thinking, options.sampling).with_values(**request.sampling)
    turn = TurnRequest(
        ids,
        params,
        thinking_budget=budget,
        schema=schema.schema if schema else None,
        is_completion=request.messages is None,
        priority=Priority.BATCH,
    )
    begun = begun_answer(core.tokenizer, ids) if request.continue_final_message else ""
    adapter = options.adapter if request.adapter is None else request.adapter
    core.known_adapters.find(adapter)  # raises before anything runs
    return [
        _Task(index, request, _choice(turn, number), schema, number, begun, adapter)
        for number in range(request.n)
    ]


def _choice(turn: TurnRequest, number: int) -> TurnRequest:
    """The request for result number `number`: with a seed of its own, made of the one given."""
    seed = turn.params.seed
    if not number or seed is None:
        return turn
    return replace(turn, params=replace(turn.params, seed=seed + number))
