"""Sequences whose KV cache comes from a PrefixStore, and goes back there. For the engine's thread."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.engine.request import Job, PrefillRequest, TurnRequest
from mlx_qwen3.engine.session_cache import SessionCache
from mlx_qwen3.engine.turn import LONGEST_HEADER, PrefillSequence, TurnSequence
from mlx_qwen3.server.reuse.prefixes import Held, PrefixStore


class RequestCache(SessionCache):
    """The cache of one request: taken from a store when the request is admitted.

    Args:
        core: The engine.
        store: Where it comes from.
        scope: Whose it is.
        begins_turn: The prompt ends with a message of the user, and not with results of tools.
        is_kept: Whether later requests may go on from it.
        adapter: As of `Engine.session`.
    """

    def __init__(
        self,
        core: EngineCore,
        store: PrefixStore,
        scope: str,
        begins_turn: bool,
        is_kept: bool = True,
        adapter: str | None = None,
    ):
        super().__init__(core, adapter)
        # Requests with another adapter never see it either, nor those of a later run with other numbers.
        self._scope = f"{scope}\n{core.known_adapters.digest(self.adapter)}" if self.adapter else scope
        self._store = store
        self._begins_turn, self._is_kept = begins_turn, is_kept
        self._held: Held | None = None

    def open(self, ids: Sequence[int]) -> PromptCache:
        if self._held is None:
            self._held = self._store.take(ids, self._scope, self.config)
            if self._begins_turn or not self._held.anchor:
                self._held.anchor = max(1, len(ids) - LONGEST_HEADER)
        self.cache = self._held.cache
        self.drafter = self.drafter or self._core.new_drafter()
        return self.cache

    def share(self) -> None:
        """Nothing to do: the store knows what it lent."""

    def drop(self) -> None:
        if self._held is not None:
            self._store.forget(self._held)
            self._held = None
        super().drop()

    def give_back(self) -> None:
        """The request has ended."""
        held, self._held = self._held, None
        if held is None:
            return
        if self._is_kept:
            self._store.put(held)
        else:
            self._store.forget(held)


class RequestSequence(TurnSequence):
    """Runs a request. Its cache goes back to the store before the client hears of the end."""

    def __init__(self, core: EngineCore, request: TurnRequest, cache: RequestCache, job: Job):
        super().__init__(core, request, cache, job)
        self._request_cache = cache

    def close(self, error: Exception | None) -> None:
        if error is None:
            self._request_cache.give_back()
        super().close(error)


class AheadSequence(PrefillSequence):
    """Prefills what the next request of a conversation is sure to begin with, while nothing else runs."""

    def __init__(self, request: PrefillRequest, cache: RequestCache, job: Job):
        super().__init__(request, cache, job)
        self._request_cache = cache

    def close(self, error: Exception | None) -> None:
        if error is None:
            self._request_cache.give_back()
        super().close(error)
