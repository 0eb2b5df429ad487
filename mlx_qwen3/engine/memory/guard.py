"""MemoryGuard: gives memory back before the machine swaps, step by step, and takes no turn down with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

import mlx.core as mx

from mlx_qwen3.backend.memory import Pressure, memory_pressure, memory_to_free
from mlx_qwen3.cache.prefix_pool import PrefixPool
from mlx_qwen3.engine.memory.parking import ParkingLot
from mlx_qwen3.events import MemoryLow
from mlx_qwen3.generation.scheduler import Scheduler

log = logging.getLogger("mlx_qwen3")

# Seconds between two looks at the machine's memory, while there is work and while there is none.
INTERVAL, IDLE_INTERVAL = 0.25, 2.0
# Memory must have been plenty for so long before waiting texts are taken again.
RECOVERY = 1.0


class Guarded(Protocol):
    """What is asked of an engine."""

    scheduler: Scheduler
    prefixes: PrefixPool
    sessions: ParkingLot


class MemoryGuard:
    """Watches the machine's memory between passes. For the engine's thread.

    Under pressure it first clears what MLX keeps for later and the caches of ended conversations. Then it
    parks the KV caches of idle sessions on disk. Then no waiting text is taken, and while pressure is
    critical running texts are set back to wait, all but one. Once memory is plenty again, all go on.

    pressure, to_free: what the machine says; tests give their own.
    """

    def __init__(
        self,
        core: Guarded,
        pressure: Callable[[], Pressure] = memory_pressure,
        to_free: Callable[[], int] = memory_to_free,
    ):
        self.pressure, self.to_free = pressure, to_free
        self.listener: Callable[[MemoryLow], object] | None = None
        """Told of what is done, beside the sequences."""
        self.parked_bytes = 0
        """Bytes of KV caches parked so far."""
        self._core = core
        self._next_look = 0.0
        self._plenty_since: float | None = None
        self._room: int | None = None  # of the scheduler, before it was made smaller

    @property
    def is_holding_back(self) -> bool:
        """Whether no new text is taken."""
        return self._core.scheduler.queue.is_paused

    def watch(self) -> None:
        """Look at the memory, if the last look is a while ago, and act on it."""
        now = time.perf_counter()
        if now < self._next_look:
            return
        core = self._core
        self._next_look = now + (IDLE_INTERVAL if core.scheduler.is_idle else INTERVAL)
        level = self.pressure()
        if level is Pressure.NORMAL:
            self._recover(now)
        else:
            self._plenty_since = None
            self._give_back(level)

    def park_idle(self, is_enough: Callable[[], bool] = lambda: False) -> int:
        """Park the caches of sessions that generate nothing now; return the bytes freed."""
        core = self._core
        busy = {id(sequence.cache) for sequence in core.scheduler.queue if sequence.cache is not None}
        core.prefixes.release()
        freed = core.sessions.park_idle(busy, is_enough)
        mx.clear_cache()
        self.parked_bytes += freed
        return freed

    def _give_back(self, level: Pressure) -> None:
        mx.clear_cache()
        if self._is_plenty():
            return
        freed = self.park_idle(self._is_plenty)
        if freed:
            self._say(MemoryLow("parked", freed))
        level = self.pressure() if freed else level
        if level is Pressure.NORMAL:
            return
        queue = self._core.scheduler.queue
        if not queue.is_paused:
            queue.is_paused = True
            self._say(MemoryLow("waiting", 0))
        if level is Pressure.CRITICAL:
            self._room = queue.room if self._room is None else self._room
            queue.room = max(0, min(queue.room, queue.held) - self.to_free())

    def _is_plenty(self) -> bool:
        mx.clear_cache()
        return self.pressure() is Pressure.NORMAL

    def _recover(self, now: float) -> None:
        queue = self._core.scheduler.queue
        if not queue.is_paused:
            return
        self._plenty_since = self._plenty_since or now
        if now - self._plenty_since >= RECOVERY:
            queue.is_paused = False
            queue.room = queue.room if self._room is None else self._room
            self._room = self._plenty_since = None

    def _say(self, event: MemoryLow) -> None:
        for sequence in self._core.scheduler.queue:
            sequence.notice(event)
        if self.listener is not None:
            try:
                self.listener(event)
            except Exception:
                log.exception("the callback of on_memory_low failed")
