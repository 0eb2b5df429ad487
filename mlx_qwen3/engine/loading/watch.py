"""Tells how far the loading of a model is, and ends it when it is no longer wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mlx_qwen3.checkpoint.transfer.transfer import Cancel
from mlx_qwen3.errors import EngineError, LoadCancelledError, one_line
from mlx_qwen3.events import LoadProgress

OnProgress = Callable[[LoadProgress], object]


class LoadWatch:
    """What is told while an engine loads, on its thread, and whether to go on.

    on_progress: called with each LoadProgress. cancel: of the caller; `stop` is the engine's own.
    """

    def __init__(self, on_progress: OnProgress | None = None, cancel: Cancel | None = None):
        for name, value, is_right in (
            ("on_progress", on_progress, callable(on_progress)),
            ("cancel", cancel, callable(getattr(cancel, "is_set", None))),
        ):
            if value is not None and not is_right:
                what = "a function" if name == "on_progress" else "a threading.Event"
                raise EngineError(f"{name} must be {what} or None, not {value!r}")
        self._on_progress, self._cancel = on_progress, cancel
        self._stop = threading.Event()

    def stop(self) -> None:
        """Have the loading end. From any thread."""
        self._stop.set()

    def is_set(self) -> bool:
        """Whether the loading shall end."""
        return self._stop.is_set() or (self._cancel is not None and self._cancel.is_set())

    def downloading(self, done: int, total: int) -> None:
        """So many bytes are downloaded."""
        self._tell(LoadProgress("downloading", done, total))

    def loading(self, done: int, total: int) -> None:
        """So many bytes of weights are in memory."""
        self._tell(LoadProgress("loading", done, total))

    def _tell(self, progress: LoadProgress) -> None:
        if self.is_set():
            raise LoadCancelledError("loading was cancelled")
        if self._on_progress is not None:
            try:
                self._on_progress(progress)
            except Exception as error:
                raise EngineError(f"on_progress failed: {one_line(error, 100)}") from error
