"""A session's place on the engine's thread: its prompt cache, and what is run over it.

Nothing here is touched by another thread, but for the two figures at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlx_qwen3.cache.prompt import PromptCache
from mlx_qwen3.decode import prefill
from mlx_qwen3.events import Done
from mlx_qwen3.jobs import Job, Steps
from mlx_qwen3.turn import Turn, TurnRequest

if TYPE_CHECKING:
    from mlx_qwen3.engine import Engine


class Slot:
    """Made with the session and empty until its first turn."""

    def __init__(self, engine: Engine):
        self.cache: PromptCache | None = None
        self._engine = engine

    def turn(self, job: Job, ask: Callable[[], TurnRequest], keep: Callable[[Turn, Done], None]) -> Steps:
        """One turn of the model; `keep` is told how it ended before anybody else is."""
        engine = self._engine
        with self._own_cache() as cache:
            turn = Turn(engine.model, engine.tokenizer, cache, ask(), job.is_cancelled)
            for events in turn.run():
                if events and isinstance(events[-1], Done):
                    keep(turn, events[-1])
                yield events

    def align(self, job: Job, start: Callable[[], list[int]]) -> Steps:
        """Bring the cache in line with a prompt that begins with the ids of `start`."""
        ids = start()
        with self._own_cache() as cache:
            rest, done = cache.begin([*ids, -1])[:-1], 0
            for processed in prefill(self._engine.model, rest, cache.layers):
                cache.extend(rest[done:processed])
                done = processed
                if job.is_cancelled():
                    return
                yield []

    @contextmanager
    def _own_cache(self) -> Iterator[PromptCache]:
        """The session's cache; dropped if a step fails half way and leaves layers of different lengths."""
        cache = self.cache or PromptCache(self._engine.model, **self._engine.cache_options)
        self.cache = cache
        try:
            yield cache
        except Exception:
            self.cache = None
            raise

    @property
    def tokens(self) -> int:
        """Tokens the cache holds."""
        return len(self.cache.ids) if self.cache else 0

    @property
    def nbytes(self) -> int:
        """Bytes the cache takes."""
        return self.cache.nbytes if self.cache else 0
