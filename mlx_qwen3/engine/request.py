"""Requests, as plain data that any thread, process or machine could send.

Job is the handle on one, Inbox what the engine's thread is asked to do.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_qwen3.errors import SamplingError
from mlx_qwen3.generation.params import SamplingParams, check_sampling
from mlx_qwen3.generation.sequence import Priority
from mlx_qwen3.tokenizer import Tokenizer
from mlx_qwen3.tokenizer.chat_template import Thinking

# How often a thread that shall end is looked at.
JOIN_SECONDS = 0.25
# What of generation_config.json concerns sampling.
PUBLISHED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class TurnRequest:
    """One model turn, or one raw completion.

    Attributes:
        prompt_ids: The whole prompt.
        params: How tokens are chosen, and when to stop.
        thinking_budget: The most tokens of thinking; None is no limit.
        schema: The JSON schema that the answer must follow.
        tool_schemas: The tools offered, name -> JSON schema of its parameters.
        must_call: The model has to call a tool; it does not answer.
        one_call: The turn ends after its first call.
        is_completion: The output is plain text: no thinking, no calls, no turns.
        priority: Which requests go first.
        asked_at: The `time.perf_counter()` that TTFT counts from.
    """

    prompt_ids: Sequence[int]
    params: SamplingParams
    thinking_budget: int | None = None
    schema: Mapping[str, Any] | None = None
    tool_schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    must_call: bool = False
    one_call: bool = False
    is_completion: bool = False
    priority: Priority = Priority.INTERACTIVE
    asked_at: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class PrefillRequest:
    """Bring a session's cache in line with the beginning of its next prompt, while nothing else runs."""

    prompt_ids: Sequence[int]


def params_for(
    tokenizer: Tokenizer, thinking: bool, sampling: SamplingParams | Mapping[str, Any] | None
) -> SamplingParams:
    """The parameters of a turn: `sampling` if it is complete, else the defaults with its values.

    Qwen's presets for hybrid models; a checkpoint with one mode (Instruct, Thinking, Coder) has its own in
    generation_config.json. Raises SamplingError for an unknown name or a bad value.
    """
    if isinstance(sampling, SamplingParams):
        return sampling
    check_sampling(sampling)
    return default_params(tokenizer, thinking).with_values(**dict(sampling or {}))


def default_params(tokenizer: Tokenizer, thinking: bool) -> SamplingParams:
    """The defaults of the checkpoint for this mode."""
    preset = SamplingParams.for_mode(thinking)
    published = tokenizer.generation_config
    if tokenizer.template.thinking is Thinking.HYBRID or not published:
        return preset
    values = {name: published[name] for name in PUBLISHED if published.get(name) is not None}
    if published.get("do_sample") is False:
        values["temperature"] = 0
    try:
        return preset.with_values(**values)
    except SamplingError:  # a file that says nonsense is no reason not to run
        return preset


Sink = Callable[[Any], object]
"""Called on the engine's thread with each event, then with `Job.END` or an exception."""


_this_thread = threading.local()


def mark_engine_thread() -> None:
    """Called by an engine on its thread."""
    _this_thread.runs_an_engine = True


class Job:
    """One request on the engine's thread."""

    END = object()

    def __init__(self, sink: Sink):
        self.finished = threading.Event()
        self.generated = 0
        """Tokens generated so far."""
        self._sink = sink
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the job to stop after the present pass. From any thread, any number of times."""
        self._cancelled.set()

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def wait(self) -> None:
        """Wait until the job has ended. An engine's thread, on which a forgotten iterator may be collected,
        waits for no job: it might be its own, or that of an engine that waits for this one."""
        if not getattr(_this_thread, "runs_an_engine", False):
            self.finished.wait()

    def tell(self, events: Iterable[object]) -> None:
        """Pass events on. On the engine's thread."""
        for event in events:
            self._tell(event)

    def finish(self, error: Exception | None) -> None:
        """The job has ended, with an error or without. On the engine's thread."""
        if not self.finished.is_set():
            self.finished.set()
            self._tell(self.END if error is None else error)

    def _tell(self, item: object) -> None:
        try:
            self._sink(item)
        except Exception:  # noqa: BLE001  # the listener is gone, with its event loop
            self.cancel()


def ignore(item: object) -> None:
    """A sink for work without a listener."""


class Inbox:
    """Calls for the engine's thread, from any thread. None among them ends the thread."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def put(self, call: Callable[[], None] | None) -> None:
        """Add a call, or the end."""
        self._calls.put(call)

    def get(self, waits: bool, timeout: float | None) -> Callable[[], None] | None:
        """The next call, or the end. Raises queue.Empty if there is none, or none in `timeout` seconds."""
        return self._calls.get(waits, timeout)

    def run_all(self) -> None:
        """Run what is there on this thread, which need not be the engine's: the end is left to that one."""
        is_ended = False
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                break
            if call is None:
                is_ended = True
            else:
                call()
        if is_ended:
            self._calls.put(None)


def end_thread(inbox: Inbox, thread: threading.Thread, process: int, is_lost: threading.Event) -> None:
    """Have the engine's thread end, and wait for that.

    Args:
        process: The id of the process that has the thread. A fork has the object, and not the thread.
        is_lost: Set where the thread waits for another machine that is lost, perhaps without end.
    """
    if os.getpid() != process:
        return
    inbox.put(None)
    while thread.is_alive() and not is_lost.is_set():
        thread.join(JOIN_SECONDS)
