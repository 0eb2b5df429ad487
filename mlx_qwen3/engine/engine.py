"""The one thread that owns MLX: it loads the model, runs every turn, and nothing else touches arrays.

Work comes in as jobs, generators that yield the events of one step at a time. Running jobs take
turns, a step each, so two sessions on one engine share it fairly and a cancel waits for one step.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

import mlx.core as mx

from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.prefix_pool import PrefixPool
from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.cache.snapshots import MarkRoom
from mlx_qwen3.checkpoint import OnDownload, resolve
from mlx_qwen3.checkpoint.fingerprint import fingerprint
from mlx_qwen3.checkpoint.load import Loaded, load
from mlx_qwen3.checkpoint.memory_plan import Plan
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.engine.batch import BatchOptions, BatchRun, Prompt
from mlx_qwen3.engine.draft_model import AUTO, TEXT, draft_cache_config, load_draft_model
from mlx_qwen3.engine.job import Job, Sink, Steps
from mlx_qwen3.engine.session import Session
from mlx_qwen3.errors import CacheError, EngineError
from mlx_qwen3.generation.sampling import SamplingParams
from mlx_qwen3.generation.speculative.drafters import Drafter, ModelDrafter, TextDrafter
from mlx_qwen3.grammar import AnswerSchema
from mlx_qwen3.model.config import ModelConfig, RopeScaling
from mlx_qwen3.tokenizer import Tokenizer

T = TypeVar("T")

ENDLESS = 2**31  # tokens
SMALLEST_WINDOW = 64


class Engine:
    """A loaded model and the thread that runs it. Close it, or use it in a `with` block.

    model: a folder, a short name, `demo`, or a hub id. context: tokens the conversation may need;
    above the model's native length positions are scaled (YaRN); None is what the memory holds, up to
    the native length. max_kv_size: tokens each session's cache holds, the first few and the latest;
    then a conversation has no end. kv_bits: 4 or 8 stores the cache quantized. draft_model: a smaller
    model of the same vocabulary that guesses ahead, `text` to guess from the text itself, None not to;
    `auto` takes the family's smallest where that pays and it is downloaded, else the text. What is said
    is the same with any. on_download: called
    with the bytes downloaded and the bytes there are, on the engine's thread. Raises what loading
    raises, InsufficientMemoryError if model and context do not fit this machine among it.
    """

    def __init__(
        self,
        model: str = "demo",
        *,
        context: int | None = None,
        max_kv_size: int | None = None,
        kv_bits: int | None = None,
        draft_model: str | None = AUTO,
        on_download: OnDownload | None = None,
    ):
        if max_kv_size is not None and max_kv_size < SMALLEST_WINDOW:
            raise CacheError(
                f"a cache of {max_kv_size} tokens holds no conversation; use {SMALLEST_WINDOW} or more"
            )
        if kv_bits not in (None, 4, 8):
            raise CacheError(f"a cache can have 4 or 8 bits, not {kv_bits}")
        self.name = model
        self.options: dict[str, Any] = {
            "context": context,
            "max_kv_size": max_kv_size,
            "kv_bits": kv_bits,
            "draft_model": draft_model,
        }
        """What it was made with, to make another like it."""
        self.cache_config = CacheConfig(max_size=max_kv_size, bits=kv_bits)
        """What each session's PromptCache is made with."""
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._is_closed = False
        self._draft_setting = draft_model
        ready: Future[tuple[Loaded, Tokenizer, Loaded | None]] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(model, context, on_download, ready), name="mlx_qwen3 engine", daemon=True
        )
        self._thread.start()
        try:
            loaded, self.tokenizer, draft = ready.result()
        except Exception:
            self._thread.join()  # it must not be cut off at exit while MLX cleans up
            raise
        except KeyboardInterrupt:
            self._jobs.put(None)  # what is being loaded cannot be stopped, but nobody will use it
            raise
        # Left open at exit, the thread would be cut off while it computes, and the process aborted.
        weakref.finalize(self, _stop, self._jobs, self._thread)
        self.model, self.plan, self.folder = loaded.model, loaded.plan, loaded.folder
        """The model, for the engine's thread alone; the plan of memory it was loaded by; its folder."""
        self.draft_model = draft.model if draft else None
        """The model that drafts, if one does; for the engine's thread alone."""
        self._draft_plan = draft.plan if draft else None
        left = (self._draft_plan or self.plan).left  # the draft's is of what the model's left
        self.prefixes = PrefixPool(left // 2)
        """What conversations have read, for others that start alike; for the engine's thread alone."""
        self.marks = MarkRoom(left // 2)
        """Memory for windows as they were before the latest answers; for the engine's thread alone."""
        self.config = self.model.args
        """The model's config as loaded; a long conversation has positions scaled further for it."""

    @property
    def context(self) -> int:
        """The most tokens a conversation may have as the model was loaded; with a window it has no end."""
        return ENDLESS if self.is_endless else self.plan.context

    @property
    def longest(self) -> int:
        """The most tokens it may have once positions are scaled as far as can be and memory allows."""
        return ENDLESS if self.is_endless else min(plan.longest for plan in self._plans)

    @property
    def _plans(self) -> list[Plan]:
        return [self.plan] if self._draft_plan is None else [self.plan, self._draft_plan]

    @property
    def is_endless(self) -> bool:
        """Whether caches are windows."""
        return self.cache_config.max_size is not None

    def fingerprint(self, config: ModelConfig) -> dict[str, str]:
        """What caches of conversations belong to, filled with positions scaled as in `config`."""
        return fingerprint(self.folder, config, self.tokenizer.template.source)

    def scale(self, job: Job, scaling: RopeScaling | None) -> None:
        """Have the model rotate positions by `scaling` in this and later steps of `job`."""
        job.scaling = scaling
        self._scale(scaling)

    def _scale(self, scaling: RopeScaling | None) -> None:
        for model in (self.model, self.draft_model):
            if model is not None:
                model.scale_positions(scaling)

    def drafter(self) -> Drafter | None:
        """Who guesses ahead in one conversation, if anybody does. For the engine's thread."""
        if self.draft_model is not None:
            config = draft_cache_config(self.draft_model, self.cache_config)
            return ModelDrafter(self.draft_model, cache_config=config, marks=self.marks)
        return TextDrafter() if self._draft_setting in (AUTO, TEXT) else None

    def prompt_cache(self) -> PromptCache:
        """An empty cache for one conversation. For the engine's thread."""
        return PromptCache(self.model, self.cache_config, marks=self.marks)

    def session(self, **options: Any) -> Session:
        """A new conversation; see Session for the options."""
        return Session(self, **options)

    def generate_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        sampling: SamplingParams | Mapping[str, Any] | None = None,
        thinking: bool = True,
        thinking_budget: int | None = None,
        control_tokens: bool = False,
        batch_size: int | None = None,
        schema: Any = None,
    ) -> BatchRun:
        """Generate for many prompts at once; iterate over what is returned for the results, as they finish.

        prompts: texts to go on from, conversations (lists of messages) to answer, or BatchRequests,
        which have settings of their own. sampling: SamplingParams for all, or the values that differ
        from Qwen's presets. thinking, thinking_budget: of conversations. control_tokens: read those
        spelled in texts to go on from. batch_size: texts written at once; None is what suits the
        device and the memory. schema: the answers to conversations are JSON in its form, as of
        Session.send. Each text is what it would be alone; a prompt that cannot be used gives
        a result with an `error`. Raises CacheError for a batch size below 1 or an engine with a window,
        SamplingError for a bad parameter, SchemaError for a schema that cannot be used.
        """
        form = AnswerSchema.of_any(schema)
        options = BatchOptions(sampling, thinking, thinking_budget, control_tokens, batch_size, form)
        return BatchRun(self, prompts, options)

    def submit(self, steps: Callable[[Job], Steps], sink: Sink, makes_way: bool = False) -> Job:
        """Run a generator on the engine's thread; `sink` gets its events there, in order."""
        if self._is_closed:
            raise EngineError("the engine is closed; make a new Engine")
        job = Job(steps, sink, makes_way)
        job.scaling = self.config.rope_scaling
        self._jobs.put(job)
        return job

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` on the engine's thread and return what it returns."""
        future: Future[T] = Future()

        def steps(_: Job) -> Steps:
            future.set_result(function())
            yield []

        def sink(end: object) -> None:
            if isinstance(end, BaseException) and not future.done():
                future.set_exception(end)

        self.submit(steps, sink)
        return future.result()

    def close(self) -> None:
        """Stop the thread; running turns end with an EngineError. Closing twice is fine."""
        if not self._is_closed:
            self._is_closed = True
            _stop(self._jobs, self._thread)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(
        self,
        name: str,
        context: int | None,
        on_download: OnDownload | None,
        ready: Future[tuple[Loaded, Tokenizer, Loaded | None]],
    ) -> None:
        try:
            folder = resolve(name, on_download)
            loaded = load(folder, context, self.cache_config, name)
            tokenizer = load_tokenizer(folder)
            draft = load_draft_model(self._draft_setting, loaded, self.cache_config, context, on_download)
        except BaseException as error:  # noqa: BLE001  # the caller waits for it
            ready.set_exception(error)
        else:
            ready.set_result((loaded, tokenizer, draft))
            self._take_turns()
        finally:
            # MLX asks for this at the end of every thread; without it the process may abort at exit.
            mx.clear_streams()

    def _take_turns(self) -> None:
        running: deque[Job] = deque()
        while True:
            for job in self._arrivals(wait=not running):
                if job is None:
                    _abandon([*running, *self._arrivals(wait=False)])
                    return
                running.append(job)
            job = running.popleft()
            self._scale(job.scaling)
            if job.step():
                running.append(job)

    def _arrivals(self, wait: bool) -> Iterator[Job | None]:
        """Jobs submitted since last asked; with `wait`, at least one."""
        try:
            yield self._jobs.get(block=wait)
            while True:
                yield self._jobs.get_nowait()
        except queue.Empty:
            return


def _stop(jobs: queue.SimpleQueue[Job | None], thread: threading.Thread) -> None:
    jobs.put(None)
    thread.join()


def _abandon(jobs: Iterable[Job | None]) -> None:
    for job in jobs:
        if job is not None:
            job.abandon()
