"""Job: the caller's side of work on the engine's thread: cancel it, wait for it, be told what it gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

Sink = Callable[[Any], object]
"""Called on the engine's thread with each event, then with `Job.END` or an exception."""


class Job:
    """One request on the engine's thread."""

    END = object()

    def __init__(self, sink: Sink):
        self.finished = threading.Event()
        self.generated = 0
        """Tokens generated so far."""
        self._sink = sink
        self._cancelled = threading.Event()
        self._runs_on: int | None = None

    def cancel(self) -> None:
        """Ask the job to stop after the present pass. From any thread, any number of times."""
        self._cancelled.set()

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def wait(self) -> None:
        """Wait until the job has ended. The engine's thread, on which a forgotten iterator may be collected,
        does not wait for itself."""
        if threading.get_ident() != self._runs_on:
            self.finished.wait()

    def tell(self, events: Iterable[object]) -> None:
        """Pass events on. On the engine's thread."""
        self._runs_on = threading.get_ident()
        for event in events:
            self._tell(event)

    def finish(self, error: Exception | None) -> None:
        """The job has ended, with an error or without. On the engine's thread."""
        self._runs_on = threading.get_ident()
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
