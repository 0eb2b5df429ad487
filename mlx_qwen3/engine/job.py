"""Work for the engine's thread: a generator, run a step at a time, and whoever listens to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from mlx_qwen3.errors import EngineError, Qwen3Error
from mlx_qwen3.model.config import RopeScaling

Steps = Generator[Sequence[object], None, None]
"""Yields, step by step, what happened: events of a turn, results of a batch."""
Sink = Callable[[Any], object]


class Job:
    """One generator on the engine's thread; what it yields goes to `sink`, then its end or error."""

    END = object()

    def __init__(self, steps: Callable[[Job], Steps], sink: Sink, makes_way: bool = False):
        """makes_way: whether it may be cancelled for other work of the same session."""
        self.makes_way = makes_way
        self.scaling: RopeScaling | None = None
        """How the model rotates positions during its steps."""
        self._steps = steps(self)
        self._sink = sink
        self._cancelled = threading.Event()
        self._runs_on: int | None = None
        self.asked_at = time.perf_counter()
        self.finished = threading.Event()

    def cancel(self) -> None:
        """Ask the job to stop after its present step. From any thread, any number of times."""
        self._cancelled.set()

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def wait(self) -> None:
        """Wait until the job has ended. The engine's thread itself, on which an iterator that nobody
        holds may happen to be collected, does not wait for itself."""
        if threading.get_ident() != self._runs_on:
            self.finished.wait()

    def step(self) -> bool:
        """Run one step on the engine's thread; False once there is none left."""
        self._runs_on = threading.get_ident()
        try:
            events = next(self._steps)
        except StopIteration:
            self._finish(self.END)
        except Qwen3Error as error:
            self._finish(error)
        except Exception as error:  # noqa: BLE001  # a failed turn must not take the engine down
            self._finish(EngineError(f"generation failed: {type(error).__name__}: {error}"))
        else:
            for event in events:
                self._tell(event)
        return not self.finished.is_set()

    def abandon(self) -> None:
        """End the job without running it further, because the engine closes."""
        self._steps.close()
        self._finish(EngineError("the engine was closed"))

    def _finish(self, end: object) -> None:
        self.finished.set()
        self._tell(end)

    def _tell(self, item: object) -> None:
        try:
            self._sink(item)
        except Exception:  # noqa: BLE001  # whoever listened has gone, with their event loop
            self.cancel()
