"""A session's place on the engine's thread: its prompt cache, and what is run over it.

Nothing here is touched by another thread, but for the two figures at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.cache.serialization import read_metadata
from mlx_qwen3.checkpoint.context_length import config_for_context, grown
from mlx_qwen3.engine.job import Job, Steps
from mlx_qwen3.engine.turn import Turn, TurnRequest
from mlx_qwen3.errors import CacheError
from mlx_qwen3.events import ContextGrown, Done
from mlx_qwen3.generation.decode import prefill
from mlx_qwen3.generation.speculative.drafters import Drafter
from mlx_qwen3.model.config import ModelConfig

if TYPE_CHECKING:
    from mlx_qwen3.engine.engine import Engine


class Slot:
    """Made with the session and empty until its first turn."""

    def __init__(self, engine: Engine):
        self.cache: PromptCache | None = None
        self.config = engine.config
        """With positions scaled as the cache was filled."""
        self._drafter: Drafter | None = None
        self._engine = engine

    def turn(self, job: Job, ask: Callable[[], TurnRequest], keep: Callable[[Turn, Done], None]) -> Steps:
        """One turn of the model; `keep` is told how it ended before anybody else is."""
        engine, request = self._engine, ask()
        if grown := self._fit(job, request):
            yield [grown]
        request = replace(request, context=self.context)
        with self._own_cache(request.prompt_ids) as cache:
            turn = Turn(engine.model, engine.tokenizer, cache, request, job.is_cancelled, self._drafter)
            for events in turn.run():
                if events and isinstance(events[-1], Done):
                    keep(turn, events[-1])
                yield events

    def align(self, job: Job, start: Callable[[], list[int]]) -> Steps:
        """Bring the cache in line with a prompt that begins with the ids of `start`."""
        ids = start()
        if len(ids) >= self.context:  # the next turn will say that it scales positions
            return
        self._engine.scale(job, self.config.rope_scaling)
        with self._own_cache(ids) as cache:
            rest, done = cache.begin([*ids, -1])[:-1], 0
            for processed in prefill(self._engine.model, rest, cache.layers):
                cache.extend(rest[done:processed])
                done = processed
                yield []
                if job.is_cancelled():
                    return

    def _fit(self, job: Job, request: TurnRequest) -> ContextGrown | None:
        """Scale positions so that the conversation fits; what was read at another scale is dropped."""
        engine, before, prompt = self._engine, self.config, len(request.prompt_ids)
        if not engine.is_endless:
            config = grown(engine.config, prompt, request.params.max_tokens, engine.longest)
            # A long conversation that became a little shorter is not read anew for that.
            is_shrunk = config.context_length < before.context_length
            if not is_shrunk or prompt <= before.context_length // 2:
                self.config = config
        engine.scale(job, self.config.rope_scaling)
        if self.config.rope_scaling == before.rope_scaling:
            return None
        self.cache = self._drafter = None
        scaling = self.config.rope_scaling
        return ContextGrown(self.context, scaling.factor) if scaling is not None else None

    @property
    def context(self) -> int:
        """Tokens the conversation may have as its positions are scaled."""
        if self._engine.is_endless:
            return self._engine.context
        is_grown = self.config.context_length > self._engine.config.context_length
        return min(self.config.context_length, self._engine.longest if is_grown else self._engine.context)

    @contextmanager
    def _own_cache(self, ids: Sequence[int]) -> Iterator[PromptCache]:
        """The session's cache, or a copy of another's that shares more with the prompt `ids`.

        Dropped if a step fails half way and leaves layers of different lengths.
        """
        engine, scaling = self._engine, self.config.rope_scaling
        cache = self.cache or engine.prompt_cache()
        cache = engine.prefixes.find(ids, scaling, better_than=cache.shared(ids)) or cache
        self.cache = cache
        self._drafter = self._drafter or engine.drafter()
        try:
            yield cache
        except Exception:
            self.cache = self._drafter = None
            raise
        engine.prefixes.add(cache, scaling)

    def save(self, path: Path) -> None:
        """Write the cache to `path`. Raises CacheError if there is none or it cannot be written."""
        if self.cache is None:
            raise CacheError("the conversation has no cache yet")
        self.cache.save(path, self._fingerprint(self.config))

    def load(self, path: Path) -> None:
        """Take the cache saved at `path`, and the scaling it was filled at. Raises CacheError."""
        engine = self._engine
        config, context = engine.config, int(read_metadata(path).get("context", 0))
        if context > config.context_length:
            if context > engine.longest:
                raise CacheError(f"{path} is of a context of {context:,} tokens; there is no room for that")
            config = config_for_context(config, context)
        engine.model.scale_positions(config.rope_scaling)
        fingerprint = self._fingerprint(config)
        self.cache = PromptCache.load(
            engine.model, path, fingerprint, engine.cache_config, marks=engine.marks
        )
        self.config = config
        self._drafter = None

    def _fingerprint(self, config: ModelConfig) -> dict[str, str]:
        return {**self._engine.fingerprint(config), "context": str(config.context_length)}

    @property
    def tokens(self) -> int:
        """Tokens the cache holds."""
        return len(self.cache.ids) if self.cache else 0

    @property
    def nbytes(self) -> int:
        """Bytes the cache takes, and a window as it was before the latest answer."""
        return self.cache.nbytes + self.cache.mark_nbytes if self.cache else 0

    @property
    def saved_nbytes(self) -> int:
        """Bytes that `save` writes."""
        return self.cache.nbytes if self.cache else 0
