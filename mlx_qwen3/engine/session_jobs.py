"""A session's way to the engine's thread, from whatever threads its callers are on: one job at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mlx_qwen3.engine.job import Job, Sink, Steps
from mlx_qwen3.engine.streams import ignore, listen
from mlx_qwen3.errors import EngineError
from mlx_qwen3.events import Event

if TYPE_CHECKING:
    from mlx_qwen3.engine.engine import Engine


class Lane:
    """Made with the session; nothing is under way yet."""

    def __init__(self, engine: Engine):
        self.job: Job | None = None
        """The latest, under way or over."""
        self._engine = engine
        self._stop = threading.Event()  # of the turn under way

    def play(self, steps: Callable[[Job], Steps], stop: threading.Event) -> Iterator[Event]:
        """Run one turn of the model and pass on its events. If `stop` is set already, it ends at once."""
        self.refuse_if_busy()

        def start(sink: Sink) -> Job:
            self._stop = stop
            self.job = job = self._engine.submit(steps, sink)
            if stop.is_set():
                job.cancel()
            return job

        yield from listen(start)

    def play_aside(self, steps: Callable[[Job], Steps]) -> None:
        """Run what nobody listens to and makes way for the next turn; not at all while one is under way."""
        if self.job is not None and not self.job.finished.is_set():
            if not self.job.makes_way:
                return
            self.job.cancel()
        self.job = self._engine.submit(steps, ignore, makes_way=True)

    def cancel(self, stop: threading.Event | None = None) -> None:
        """Stop the turn that was given `stop`, or whichever is under way."""
        stop = self._stop if stop is None else stop
        stop.set()
        if self.job is not None and self._stop is stop:
            self.job.cancel()

    def refuse_if_busy(self) -> None:
        """Wait for a job that is on its way out. Raises EngineError if there is one that is not."""
        job = self.job
        if job is None or job.finished.is_set():
            return
        if job.makes_way:
            job.cancel()
        if not job.is_cancelled():
            raise EngineError("this session is still answering; cancel that turn first")
        job.wait()
