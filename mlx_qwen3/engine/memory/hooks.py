"""What a program can do about an engine's memory: unload the model, free what is spare, hear of pressure."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.events import MemoryLow


class MemoryHooks(EngineCore):
    """An engine whose memory can be asked for. Its guard acts by itself; this is for what it cannot know."""

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory; an unloaded one is loaded by the next request."""
        return self.model is not None

    def unload(self) -> bool:
        """Give the model's memory back until the next request; conversations are parked on disk and go on.

        For an app that goes to the background, or is told that memory is short. Waits for the pass that runs.

        Returns:
            Whether the model is out of memory now: not while text is generated, nor over several machines.

        Raises:
            EngineError: The engine is closed.
        """
        return self.call(self._unload, reload=False)

    def free_memory(self) -> int:
        """Give back what is not needed now: conversations that wait are parked on disk, spare buffers freed.

        The model stays, and so does what is generated. For an app that the system tells of memory pressure
        before the engine looks again, which it does every two seconds while it is idle.

        Returns:
            The bytes freed.

        Raises:
            EngineError: The engine is closed.
        """

        def free() -> int:
            before = mx.get_active_memory() + mx.get_cache_memory()
            self.guard.park_idle()
            return max(0, before - mx.get_active_memory() - mx.get_cache_memory())

        return self.call(free, reload=False) if self.is_loaded else 0

    def on_memory_low(self, callback: Callable[[MemoryLow], object] | None) -> None:
        """Have `callback` called when memory is scarce and the engine does something about it.

        It is called on the engine's thread, also while nothing is generated; sessions get the event too. None
        ends it.
        """
        self.guard.listener = callback
