"""Who drafts the tokens that speculation checks: the text itself, or a smaller model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import mlx.core as mx

from mlx_qwen3.cache.base import Cache, roll_back
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.prompt_cache import MakesCache, PromptCache, common_prefix
from mlx_qwen3.cache.snapshots import SnapshotBudget
from mlx_qwen3.generation.prefill import fill
from mlx_qwen3.generation.sampling import NOTHING, Sampler
from mlx_qwen3.generation.speculative.draft_length import Pace


class Drafter(Protocol):
    """Proposes tokens. Knows the text so far, is told of each token said, and outlives turns."""

    pace: Pace

    def begin(self, ids: Sequence[int]) -> Iterator[int]:
        """Take `ids` for the text so far, at little cost where most of it is known; yields now and then."""

    def extend(self, token: int) -> None:
        """`token` was said."""

    def has_draft(self) -> bool:
        """Whether there will probably be something to draft once one more token was said."""

    def draft(self, count: int, sampler: Sampler) -> mx.array:
        """Up to `count` tokens that may come next, (k,), maybe not evaluated."""

    def discard(self) -> None:
        """Hold on to nothing that was not said."""


class NGramDrafter:
    """Expects that what the text says now it said before: in the prompt, in a file, in an earlier answer.

    Drafts what followed the longest earlier occurrence of the latest tokens, `shortest` of them at
    least. Each run of `shortest` tokens is chained to the one like it before, as in LZ77
    (RFC 1951, section 4), so a token costs the same however long the text is.
    """

    def __init__(self, shortest: int = 3, longest: int = 15):
        self.pace = Pace(longest)
        self._shortest = shortest
        self._ids: list[int] = []
        self._latest: dict[tuple[int, ...], int] = {}  # where each run of tokens ended last
        self._before: list[int] = []  # where the run that ends at a position ended before, or -1

    def begin(self, ids: Sequence[int]) -> Iterator[int]:
        shared = common_prefix(self._ids, ids)
        while len(self._ids) > shared:
            self._take_back()
        for token in ids[len(self._ids) :]:
            self.extend(token)
        yield from ()

    def extend(self, token: int) -> None:
        self._ids.append(token)
        run, end = self._run(), len(self._ids) - 1
        self._before.append(self._latest.get(run, -1))
        self._latest[run] = end

    def has_draft(self) -> bool:
        return bool(self._before) and self._before[-1] >= 0

    def draft(self, count: int, sampler: Sampler) -> mx.array:  # noqa: ARG002  # text draws nothing
        end = self._match()
        if end is None:
            return NOTHING
        # Beyond the text's end a draft goes on with itself: text that repeats does so again.
        text = self._ids[end + 1 :]
        while len(text) < count:
            text += text
        return mx.array(text[:count], mx.uint32)

    def discard(self) -> None:
        """Nothing to do: drafts leave no trace."""

    def _match(self) -> int | None:
        """Where the longest earlier occurrence of the latest tokens ends, the latest of the longest."""
        best, best_length, end = None, 0, self._before[-1] if self._before else -1
        for _ in range(MATCHES):
            if end < 0:
                break
            length = self._shared(end)
            if length > best_length:
                best, best_length = end, length
            end = self._before[end]
        return best

    def _shared(self, end: int) -> int:
        """How many tokens up to `end` are those that the text ends with, as far as it matters."""
        ids, last = self._ids, len(self._ids) - 1
        length = self._shortest
        while length < LONGEST_MATCH and length <= end and ids[end - length] == ids[last - length]:
            length += 1
        return length

    def _run(self) -> tuple[int, ...]:
        return tuple(self._ids[-self._shortest :])

    def _take_back(self) -> None:
        run, before = self._run(), self._before.pop()
        self._ids.pop()
        if before < 0:
            del self._latest[run]
        else:
            self._latest[run] = before


# How many earlier places are compared, and over how many tokens.
MATCHES, LONGEST_MATCH = 16, 32


class DraftModel(MakesCache, Protocol):
    def __call__(self, inputs: mx.array, cache: Sequence[Cache]) -> mx.array: ...


class ModelDrafter:
    """A smaller model of the same vocabulary, with a cache of its own.

    It draws with the noise that the target draws with, so they mostly agree even where both are unsure.
    cache_config, snapshots: as of PromptCache.
    """

    def __init__(
        self,
        model: DraftModel,
        longest: int = 8,
        cache_config: CacheConfig | None = None,
        snapshots: SnapshotBudget | None = None,
    ):
        self.pace = Pace(longest)
        self._model = model
        self._cache = PromptCache(model, cache_config, snapshots=snapshots)
        self._fed: list[int] = []  # since `begin`, and said
        self._unfed: list[int] = []  # said, and not fed yet
        self._guesses = NOTHING  # fed, and not said yet
        self._guessed: list[int] = []  # their ids, once one was asked for: one wait for all

    def begin(self, ids: Sequence[int]) -> Iterator[int]:
        self.discard()
        self._unfed = []
        yield from fill(self._cache, self._model, ids)
        self._cache.take_snapshot()
        for layer in self._cache.layers:
            self.pace.longest = min(self.pace.longest, layer.keep_for_rollback(self.pace.longest))

    def extend(self, token: int) -> None:
        if self._guesses.size and not self._guessed:
            self._guessed = self._guesses.tolist()  # type: ignore[assignment]
        if self._guessed and self._guessed[0] == token:
            self._guesses, self._guessed = self._guesses[1:], self._guessed[1:]
            self._fed.append(token)
        else:
            self._drop_guesses()
            self._unfed.append(token)

    def has_draft(self) -> bool:
        return True

    def draft(self, count: int, sampler: Sampler) -> mx.array:
        self._drop_guesses()
        draft, inputs = NOTHING, mx.array(self._unfed, mx.uint32)
        for _ in range(count):
            logits = self._model(inputs[None], self._cache.layers)[:, -1]
            inputs = sampler.guess(logits, draft)
            mx.async_eval(inputs)  # type: ignore[no-untyped-call]
            draft = mx.concatenate([draft, inputs])
        self._fed += self._unfed
        self._unfed = []
        self._guesses = draft[:-1]
        return draft

    def discard(self) -> None:
        self._drop_guesses()
        self._cache.extend(self._fed)
        self._fed = []

    def _drop_guesses(self) -> None:
        if self._guesses.size:
            roll_back(self._cache.layers, self._guesses.size)
            self._guesses, self._guessed = NOTHING, []
