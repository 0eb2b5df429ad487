"""Watches the other ranks from a thread, because a collective whose partner is gone may wait for ever."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from mlx_qwen3.distributed.channel import Connection

LOOK_SECONDS = 0.25
# For MLX's ring to finish the lines that it writes of the same loss, piece by piece, to stderr.
SETTLE_SECONDS = 0.3
# No sign of life for so long: the rank is taken for lost.
SILENCE_SECONDS = 10.0
# A rank that lives, and yet does not finish a pass for so long, has stalled.
STEP_SECONDS = 120.0
STEP_VARIABLE, SILENCE_VARIABLE = "MLX_QWEN3_STEP_SECONDS", "MLX_QWEN3_SILENCE_SECONDS"


class Watch:
    """Calls `on_lost` once, with a line that names the rank, when a rank is gone, silent or stalled.

    Attributes:
        line: What was said; None while all is well.
    """

    def __init__(
        self,
        connections: Sequence[Connection],
        on_lost: Callable[[str], None],
        waiting_since: Callable[[], tuple[float, str] | None] = lambda: None,
    ):
        """waiting_since: since when a pass is waited for, by `time.monotonic()`, and for whom."""
        self.line: str | None = None
        self._connections, self._on_lost, self._waiting_since = connections, on_lost, waiting_since
        self._said, self._stopped = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._step_seconds = _seconds(STEP_VARIABLE, STEP_SECONDS)
        self._silence_seconds = _seconds(SILENCE_VARIABLE, SILENCE_SECONDS)
        threading.Thread(target=self._watch, name="mlx_qwen3 watch", daemon=True).start()

    def stop(self) -> None:
        """The run ends in good order."""
        self._stopped.set()

    def lose(self, line: str) -> None:
        """Give up, for the reason in `line`, unless the run has ended already."""
        with self._lock:
            if self.line is not None or self._stopped.is_set():
                return
            self.line = line
        time.sleep(SETTLE_SECONDS)
        try:
            self._on_lost(line)
        finally:
            self._said.set()  # last, so that `verdict` returns once `on_lost` is done

    def verdict(self, seconds: float) -> str | None:
        """Why the run ended, waiting up to `seconds` for it; None if nothing is known."""
        self._said.wait(seconds)
        return self.line

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._stopped.is_set() and self.line is None:
            time.sleep(LOOK_SECONDS)
            now = time.monotonic()
            if now - before > 4 * LOOK_SECONDS:  # this process itself was held up: it could hear nothing
                for connection in self._connections:
                    connection.heard += now - before
            before = now
            if line := self._problem(now):
                self.lose(line)

    def _problem(self, now: float) -> str | None:
        for connection in self._connections:
            if not connection.is_open:
                return f"{connection} ended, or the connection to it was lost"
            if now - connection.heard > self._silence_seconds:
                return f"{connection} has given no sign of life for {self._silence_seconds:.0f} s"
        waiting = self._waiting_since()
        if waiting is not None and now - waiting[0] > self._step_seconds:
            return f"{waiting[1]} lives, but has not finished a pass for {self._step_seconds:.0f} s"
        return None


def _seconds(variable: str, default: float) -> float:
    """What the environment says, at least a second, or else `default`."""
    try:
        return max(1.0, float(os.environ.get(variable, "")))
    except ValueError:
        return default
