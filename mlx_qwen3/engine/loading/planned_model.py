"""What an engine has loaded, and how long conversations the memory planned for it holds."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from mlx_qwen3.backend.device import available_memory
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.checkpoint.fingerprint import model_fingerprint
from mlx_qwen3.checkpoint.load import LoadedModel
from mlx_qwen3.checkpoint.memory import cache_nbytes
from mlx_qwen3.checkpoint.memory_plan import MemoryPlan
from mlx_qwen3.engine.loading.adapters import Adapters
from mlx_qwen3.engine.loading.ranks import Ranks
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.tokenizer import Tokenizer

ENDLESS = 2**31  # tokens
# Of the memory that is free after loading, what KV caches of running sequences may take.
CACHE_SHARE = 0.5
# A cache that grows takes a quarter more than it needs for a moment.
GROWTH_SHARE = 0.8


class PlannedModel:
    """A loaded model with its memory plan; EngineCore runs it."""

    model: Any
    plan: MemoryPlan
    config: ModelConfig
    cache_config: CacheConfig
    folder: Path
    tokenizer: Tokenizer
    name: str
    options: dict[str, Any]
    _draft_plan: MemoryPlan | None
    _ranks: Ranks | None

    @property
    def ranks(self) -> dict[int, int] | None:
        """The latest message that each other machine has finished, by rank; None on one machine.

        Every rank says each second that it lives; one that does not makes `failure` name it.
        """
        return self._ranks.health if self._ranks is not None else None

    @property
    def context(self) -> int:
        """The most tokens a conversation may have as the model was loaded; with a window there is no end."""
        return ENDLESS if self.is_endless else self.plan.context

    @property
    def longest(self) -> int:
        """The most tokens it may have once positions are scaled as far as possible and memory allows."""
        return ENDLESS if self.is_endless else min(plan.longest_context for plan in self._plans)

    @property
    def _plans(self) -> list[MemoryPlan]:
        return [self.plan] if self._draft_plan is None else [self.plan, self._draft_plan]

    @property
    def is_endless(self) -> bool:
        """Whether caches are sliding windows."""
        return self.cache_config.max_size is not None

    @cached_property
    def known_adapters(self) -> Adapters:
        """The adapters that sessions and requests choose from."""
        return Adapters(self.options["adapter"], self.options["adapters"])

    def fingerprint(self, config: ModelConfig, adapter: str | None = None) -> dict[str, str]:
        """What saved caches depend on, filled with positions scaled as in `config`.

        adapter: as of `Engine.session`. Raises EngineError if there is none of that name.
        """
        fingerprint = model_fingerprint(self.folder, config, self.tokenizer.template.source)
        if (name := self.known_adapters.find(adapter)) is not None:
            fingerprint["model"] += f" with {self.known_adapters.digest(name)}"
        return fingerprint

    def _adapted(self, loaded: LoadedModel) -> LoadedModel:
        """The loaded model with all adapters, which share its weights."""
        self.known_adapters.put_on(loaded.model, self.name)
        return loaded

    def cache_nbytes(self, tokens: int) -> int:
        """Bytes of the KV cache of so many tokens."""
        config = self.config if self._ranks is None else self._ranks.config  # this machine's part of it
        return cache_nbytes(config, self.cache_config, tokens, self._itemsize)

    @property
    def _itemsize(self) -> int:
        norm = getattr(getattr(self.model, "model", None), "norm", None)
        return norm.weight.dtype.size if norm is not None else 4

    def _cache_room(self) -> int:
        """Bytes that the caches of running sequences may take together: a whole context at least."""
        free = available_memory() - self.plan.estimate.workspace
        tokens = self.cache_config.max_size or self.plan.context
        return max(self.cache_nbytes(tokens), int(free * CACHE_SHARE * GROWTH_SHARE))
