"""SessionJobs: submits the requests of one session to the engine, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.engine.request import Job, PrefillRequest, Sink, TurnRequest, ignore
from mlx_qwen3.engine.session_cache import SessionCache
from mlx_qwen3.engine.streams import iterate
from mlx_qwen3.engine.turn import PrefillSequence, TurnSequence
from mlx_qwen3.errors import EngineError
from mlx_qwen3.events import Event


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
