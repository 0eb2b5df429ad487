"""Many prompts at once on an engine: what is asked, how it runs, what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlx_qwen3.backend.device import available_memory, is_cpu
from mlx_qwen3.checkpoint.memory import cache_nbytes
from mlx_qwen3.engine.completion import CompletionOutput, check_prompt
from mlx_qwen3.engine.job import Job, Sink, Steps
from mlx_qwen3.engine.streams import listen
from mlx_qwen3.engine.turn_output import TurnOutput
from mlx_qwen3.errors import CacheError, MessageError, Qwen3Error, SchemaError
from mlx_qwen3.events import FinishReason
from mlx_qwen3.generation.batch_decode import BatchDecoder, Row
from mlx_qwen3.generation.sampling import Sampler, SamplingParams
from mlx_qwen3.grammar import AnswerSchema, constrain
from mlx_qwen3.tokenizer.messages import Message

if TYPE_CHECKING:
    from mlx_qwen3.engine.engine import Engine

# Texts written at once, if memory holds them: more of them gain little.
CPU_BATCH, GPU_BATCH = 16, 32
# Of the memory that is free, what the caches of a batch may take; sessions need some too.
CACHE_SHARE = 0.5
# A cache that grows takes a quarter more than it needs.
ROOM_SHARE = 0.8
# Tokens over which the bytes of one are averaged.
MANY_TOKENS = 4096


@dataclass(frozen=True)
class BatchRequest:
    """A text to go on from (`prompt`), or a conversation to answer (`messages`): one of the two.

    id: the caller's name for it, given back with the result. sampling: what differs from the batch's
    parameters, such as max_tokens or seed. thinking, thinking_budget, schema: as of a session, for
    conversations; None is the batch's.
    """

    prompt: str | None = None
    messages: Sequence[Message] | None = None
    id: Any = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    thinking: bool | None = None
    thinking_budget: int | None = None
    schema: Any = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise MessageError("a request has either a prompt or messages")
        if self.thinking_budget is not None and self.thinking_budget < 0:
            raise MessageError(f"a thinking budget counts tokens, it cannot be {self.thinking_budget}")


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of request number `index`.

    text: what follows the prompt, or the answer to the messages; thinking: what came before the
    answer. parsed: the answer as a value, where it has a schema. error: why nothing was generated (then
    there is no finish_reason), or why a pydantic model refused the answer.
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


Prompt = str | Sequence[Message] | BatchRequest
"""A text to go on from, a conversation to answer, or either with settings of its own."""


@dataclass(frozen=True)
class BatchOptions:
    """What holds for all requests of a batch; see `Engine.generate_batch`."""

    sampling: SamplingParams | Mapping[str, Any] | None = None
    thinking: bool = True
    thinking_budget: int | None = None
    control_tokens: bool = False
    batch_size: int | None = None
    form: AnswerSchema | None = None


@dataclass(frozen=True)
class _Task:
    """A request that can run."""

    index: int
    request: BatchRequest
    ids: list[int]
    params: SamplingParams
    thinking_budget: int | None
    form: AnswerSchema | None

    def row(self, engine: Engine) -> _TaskRow:
        return _TaskRow(self, engine)


class BatchRun:
    """Iterates over the results of a batch, each as soon as it is there; which is in no particular order.

    total: how many there will be. tokens: how many were generated so far, of all texts together.
    Leaving the loop early, or `cancel` from any thread, stops the batch; what was not finished then
    gives no result.
    """

    def __init__(self, engine: Engine, prompts: Iterable[Prompt], options: BatchOptions):
        if isinstance(prompts, str):
            raise MessageError("a batch is a list of prompts, not one text")
        prompts = list(prompts)
        if engine.is_endless:
            raise CacheError("texts of a batch keep all their tokens; make an Engine without max_kv_size")
        if options.batch_size is not None and options.batch_size < 1:
            raise CacheError(f"a batch has one text at least, not {options.batch_size}")
        self.total, self.tokens = len(prompts), 0
        self._engine, self._options = engine, options
        _params(True, options)  # what is wrong with all is no request's fault
        self._tasks: list[_Task] = []
        self._failed: list[BatchResult] = []
        for index, prompt in enumerate(prompts):
            request = _as_request(prompt)
            try:
                self._tasks.append(_task(index, request, engine, options))
            except Qwen3Error as error:
                self._failed.append(BatchResult(index, request.id, error=str(error)))
        self._job: Job | None = None
        self._is_cancelled = False
        self._results = listen(self._start)

    def __iter__(self) -> Iterator[BatchResult]:
        return self

    def __next__(self) -> BatchResult:
        result: BatchResult = next(self._results)
        return result

    def cancel(self) -> None:
        """Stop after the present step."""
        self._is_cancelled = True
        if self._job is not None:
            self._job.cancel()

    def _start(self, sink: Sink) -> Job:
        self._job = self._engine.submit(self._steps, sink)
        if self._is_cancelled:
            self._job.cancel()
        return self._job

    def _steps(self, job: Job) -> Steps:
        """On the engine's thread: a chunk of prompts or a token of each text a step."""
        yield self._failed
        longest_first = sorted(self._tasks, key=lambda task: -len(task.ids))
        size = self._options.batch_size or (CPU_BATCH if is_cpu() else GPU_BATCH)
        rows = (task.row(self._engine) for task in longest_first)
        bits = self._engine.cache_config.bits
        decoder = BatchDecoder(self._engine.model, rows, size, _room(self._engine), bits)
        for tokens in decoder.run():
            if job.is_cancelled():
                return
            self.tokens += len(tokens)
            yield [result for row, token in tokens if (result := row.take(token)) is not None]


def _as_request(prompt: Prompt) -> BatchRequest:
    if isinstance(prompt, BatchRequest):
        return prompt
    return BatchRequest(prompt=prompt) if isinstance(prompt, str) else BatchRequest(messages=prompt)


def _task(index: int, request: BatchRequest, engine: Engine, options: BatchOptions) -> _Task:
    """Raises what is wrong with the request."""
    budget = options.thinking_budget if request.thinking_budget is None else request.thinking_budget
    thinking = options.thinking if request.thinking is None else request.thinking
    thinking = thinking and budget != 0 and request.messages is not None
    form = AnswerSchema.of_any(request.schema) or options.form
    if form is not None and request.messages is None:
        raise MessageError("a schema is for answers to messages, and this is a text to go on from")
    if request.messages is not None:
        messages = form.asking(request.messages) if form else request.messages
        ids = engine.tokenizer.apply_chat_template(messages, enable_thinking=thinking)
    else:
        ids = engine.tokenizer.encode(request.prompt or "", control_tokens=options.control_tokens)
    check_prompt(ids, engine.context)
    params = _params(thinking, options).with_values(**request.sampling)
    return _Task(index, request, ids, params, budget, form)


def _params(thinking: bool, options: BatchOptions) -> SamplingParams:
    if isinstance(options.sampling, SamplingParams):
        return options.sampling
    return SamplingParams.for_mode(thinking).with_values(**(options.sampling or {}))


class _TaskRow(Row):
    """A row that makes text of its tokens."""

    def __init__(self, task: _Task, engine: Engine):
        vocab_size = engine.model.args.vocab_size
        grammar = constrain(engine.tokenizer, vocab_size, task.ids, task.form, {}) if task.form else None
        super().__init__(task.ids, Sampler(task.params, vocab_size, grammar))
        self._task = task
        limit = min(task.params.max_tokens, engine.context - len(task.ids))
        self._output: CompletionOutput | TurnOutput
        if task.request.messages is None:
            self._output = CompletionOutput(engine.tokenizer, limit)
        else:
            self._output = TurnOutput(
                engine.tokenizer, task.ids, limit, task.thinking_budget, grammar=grammar
            )
            self._heed_budget()

    def take(self, token: int) -> BatchResult | None:
        """Account for one token; returns the result if it was the last."""
        self._output.take(token)
        self.is_done = self._output.finish_reason is not None
        if self.is_done:
            return self._result()
        self._heed_budget()
        return None

    def _heed_budget(self) -> None:
        if isinstance(self._output, TurnOutput) and self._output.budget_is_spent():
            self.feed.extend(self._output.end_thinking()[1])

    def _result(self) -> BatchResult:
        output, task = self._output, self._task
        if isinstance(output, TurnOutput):
            said: dict[str, Any] = {
                "text": output.answer,
                "thinking": output.thinking,
                "thinking_tokens": output.thinking_tokens,
                **_parsed(task.form, output.answer),
            }
        else:
            said = {"text": output.text}
        return BatchResult(
            task.index,
            task.request.id,
            finish_reason=output.finish_reason,
            prompt_tokens=len(task.ids),
            completion_tokens=output.generated,
            **said,
        )


def _parsed(form: AnswerSchema | None, answer: str) -> dict[str, Any]:
    if form is None:
        return {}
    try:
        return {"parsed": form.parse(answer)}
    except SchemaError as error:
        return {"error": str(error)}


def _room(engine: Engine) -> int:
    """Tokens that the caches of a batch may hold together: one text's whole context at least."""
    itemsize = engine.model.model.norm.weight.dtype.size
    bytes_of_many = cache_nbytes(engine.model.args, engine.cache_config, MANY_TOKENS, itemsize)
    free = available_memory() - engine.plan.need.workspace
    return max(engine.context, int(free * CACHE_SHARE * ROOM_SHARE * MANY_TOKENS / bytes_of_many))
