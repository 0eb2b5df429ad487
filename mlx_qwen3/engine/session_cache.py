"""SessionCache: the KV cache of one conversation between its turns. For the engine's thread."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.cache.serialization import read_metadata
from mlx_qwen3.checkpoint.context_length import config_for_context, config_for_prompt
from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.engine.loading.adapters import NONE
from mlx_qwen3.errors import CacheError
from mlx_qwen3.events import ContextGrown
from mlx_qwen3.generation.speculative.drafters import Drafter
from mlx_qwen3.model.config import ModelConfig


@dataclass(frozen=True)
class ParkedFile:
    """Where a cache was parked, and how many tokens it holds."""

    path: Path
    tokens: int


class SessionCache:
    """A prompt cache, the drafter that knows its text, and what it is filled with: how positions are scaled,
    and the adapter.

    Attributes:
        adapter: Its name; None is the model alone.
    """

    def __init__(self, core: EngineCore, adapter: str | None = None):
        """adapter: as of `Engine.session`. Raises EngineError if there is none of that name."""
        self.adapter = core.known_adapters.find(adapter)
        self.cache: PromptCache | None = None
        self.drafter: Drafter | None = None
        self.config: ModelConfig = core.config
        """The model's config with the rope scaling that the cache was filled with."""
        self.last_used = 0.0
        """When it was opened last, by `time.monotonic()`."""
        self._core = core
        self._parked: ParkedFile | None = None

    def fit(self, prompt_tokens: int, max_tokens: int) -> ContextGrown | None:
        """Scale positions so that the conversation fits its context.

        A cache that was filled with another scaling is dropped, and the event to report is returned.
        """
        core, before = self._core, self.config
        if not core.is_endless:
            config = config_for_prompt(core.config, prompt_tokens, max_tokens, core.longest)
            # A long conversation that became a little shorter is not prefilled again for that.
            is_shrunk = config.context_length < before.context_length
            if not is_shrunk or prompt_tokens <= before.context_length // 2:
                self.config = config
        if self.config.rope_scaling == before.rope_scaling:
            return None
        self.drop()
        scaling = self.config.rope_scaling
        return ContextGrown(self.context, scaling.factor) if scaling is not None else None

    def use_adapter(self, name: str | None) -> None:
        """Compute with the adapter `name` from now on; what was computed with another does not fit."""
        adapter = self._core.known_adapters.find(name)
        if adapter != self.adapter:
            self.drop()
            self.adapter = adapter

    @property
    def context(self) -> int:
        """Tokens the conversation may have with its present scaling."""
        core = self._core
        if core.is_endless:
            return core.context
        is_grown = self.config.context_length > core.config.context_length
        return min(self.config.context_length, core.longest if is_grown else core.context)

    def open(self, ids: Sequence[int]) -> PromptCache:
        """The session's cache, or a copy of another session's that shares more with the prompt `ids`."""
        core = self._core
        self.last_used = time.monotonic()
        self._bring_back()
        cache = self.cache or core.new_cache()
        self.cache = core.prefixes.find(ids, self._pool_key, better_than=cache.reusable(ids)) or cache
        self.drafter = self.drafter or core.new_drafter()
        return self.cache

    def share(self) -> None:
        """Let other sessions copy what the cache holds."""
        if self.cache is not None:
            self._core.prefixes.add(self.cache, self._pool_key)

    @property
    def _pool_key(self) -> object:
        return self.adapter, self.config.rope_scaling

    def drop(self) -> None:
        """Forget the cache; the next turn prefills its whole prompt."""
        self.cache = self.drafter = None
        self._remove_file()

    def is_used_by(self, caches: Collection[int]) -> bool:
        """Whether one of the caches with these ids (of Python's `id`) is its own."""
        return id(self.cache) in caches

    def park(self, path: Path) -> None:
        """Move the cache to `path`; the next turn brings it back. One that cannot be written is dropped."""
        if self.cache is None:
            return
        parked: ParkedFile | None = None
        with suppress(CacheError):
            self.cache.save(path, self._fingerprint(self.config))
            parked = ParkedFile(path, len(self.cache.ids))
        self.cache = self.drafter = None
        self._parked = parked

    def _bring_back(self) -> None:
        """Read the cache again that was parked. Where that fails the next turn prefills its whole prompt."""
        if self._parked is None or self.cache is not None:
            return
        self._core.model.scale_positions(self.config.rope_scaling)
        with suppress(CacheError):
            self.cache = self._core.load_cache(self._parked.path, self._fingerprint(self.config))
        self._remove_file()

    def _remove_file(self) -> None:
        if self._parked is not None:
            self._parked.path.unlink(missing_ok=True)
            self._parked = None

    def save(self, path: Path) -> None:
        """Write the cache to `path`. Raises CacheError if there is none or it cannot be written."""
        self._bring_back()
        if self.cache is None:
            raise CacheError("the conversation has no cache yet")
        self.cache.save(path, self._fingerprint(self.config))

    def load(self, path: Path) -> None:
        """Load the cache saved at `path`, with the scaling it was filled with. Raises CacheError."""
        core = self._core
        config, context = core.config, _saved_context(path)
        if context > config.context_length:
            if context > core.longest:
                raise CacheError(
                    f"{path} is for a context of {context:,} tokens; there is no memory for that"
                )
            config = config_for_context(config, context)
        core.model.scale_positions(config.rope_scaling)
        self.cache = core.load_cache(path, self._fingerprint(config))
        self.config = config
        self.drafter = None
        self._remove_file()

    def _fingerprint(self, config: ModelConfig) -> dict[str, str]:
        made_with = self._core.fingerprint(config, self.adapter or NONE)
        return {**made_with, "context": str(config.context_length)}

    @property
    def tokens(self) -> int:
        """Tokens the cache holds."""
        if self._parked is not None:
            return self._parked.tokens
        return len(self.cache.ids) if self.cache else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the cache, and of a window's snapshot."""
        return self.cache.nbytes + self.cache.snapshot_nbytes if self.cache else 0

    @property
    def saved_nbytes(self) -> int:
        """Bytes that `save` writes."""
        return self.cache.nbytes if self.cache else 0


def _saved_context(path: Path) -> int:
    """The context that a cache was saved with. Raises CacheError if the file does not say it."""
    text = read_metadata(path).get("context", "0")
    if not (text.isdecimal() and len(text) < 12):
        raise CacheError(f"{path} does not say for which context it was saved")
    return int(text)
