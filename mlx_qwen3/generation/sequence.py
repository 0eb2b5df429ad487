"""Sequence: one text being generated, as the scheduler sees it. Token ids only."""

from __future__ import annotations

import time
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field
from enum import IntEnum

import mlx.core as mx

from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.generation.sampling import Sampler, TokenLogprobs
from mlx_qwen3.generation.speculative.drafters import Drafter
from mlx_qwen3.model.config import RopeScaling


class Priority(IntEnum):
    """Which sequences go first. BACKGROUND: only while there is nothing else to do."""

    INTERACTIVE = 0
    BATCH = 1
    BACKGROUND = 2


@dataclass
class SequenceTimes:
    """When things happened to a sequence, by `time.perf_counter()`; 0.0 before."""

    added: float = field(default_factory=time.perf_counter)
    admitted: float = 0.0
    prefilled: float = 0.0
    first_token: float = 0.0


class Sequence:
    """One text: a prompt, and what is generated after it.

    The scheduler calls `open`, `prefilled`, `take` and `close`, all on the engine's thread; a subclass
    says what they mean. In `take`, `finish` and `force` change what comes next.
    """

    def __init__(
        self, prompt_ids: Ids[int], sampler: Sampler | None, priority: Priority = Priority.INTERACTIVE
    ):
        """prompt_ids: one at least. sampler: None prefills the prompt and generates nothing."""
        self.prompt_ids = list(prompt_ids)
        self.sampler = sampler
        self.priority = priority
        self.cache: PromptCache | None = None
        self.drafter: Drafter | None = None
        self.scaling: RopeScaling | None = None
        """How the model rotates positions for it (YaRN)."""
        self.adapter: str | None = None
        """The adapter that the model computes it with; None is the model alone."""
        self.wants_logprobs: int | None = None
        """How many likeliest tokens to report beside each token; None reports nothing."""
        self.opening = 0
        """Ids at the end of the prompt before which a window is remembered, so that it can be rolled back."""
        self.times = SequenceTimes()
        self.cached = self.generated = 0
        self.decode_passes = self.drafted = self.accepted = 0
        self.largest_batch = 1
        self.is_done = False

        # What the scheduler keeps of it.
        self.pending: list[int] = list(prompt_ids)  # to be fed before the next token can be chosen
        self.unrecorded: list[int] = []  # fed, or about to be, and not in `cache.ids` yet
        self.snapshot_at: int | None = None  # of `pending`, how many to feed before a snapshot
        self.epoch = 0  # passes begun in an earlier one have no say any more
        self.total_to_prefill = 0
        self.is_prefilling = True
        self.keeps_undo = 0
        self._forced: list[int] | None = None

    # What subclasses say

    def open(self, ids: Ids[int]) -> None:
        """Set `cache`, and what else is needed to feed `ids`. Called on admission, and once more if the
        cache had to be dropped. What it raises ends the sequence."""
        raise NotImplementedError  # every subclass has caches of its own

    def prefilled(self, processed: int, total: int) -> None:
        """`processed` of `total` new tokens of the prompt have been fed."""

    def take(self, token: int, logprobs: TokenLogprobs | None) -> None:
        """`token` was generated."""

    def close(self, error: Exception | None) -> None:
        """The sequence has ended; with an error its cache means nothing any more."""

    def is_cancelled(self) -> bool:
        """Whether to end before the next pass."""
        return False

    def evicted(self) -> None:
        """Its cache was dropped to make room; `open` is called again later."""

    def notice(self, event: object) -> None:
        """Something happened on the machine that its reader should know."""

    def cancel(self) -> None:
        """Called where `is_cancelled` was noticed before another token came."""

    # What subclasses may do in `take`

    def finish(self) -> None:
        """Generate nothing more."""
        self.is_done = True

    def force(self, ids: Ids[int]) -> None:
        """Feed `ids` in place of the token that would come next."""
        self._forced = list(ids)

    def take_forced(self) -> list[int] | None:
        """What `force` was given since the last call."""
        forced, self._forced = self._forced, None
        return forced

    # What the scheduler asks

    @property
    def length(self) -> int:
        """Tokens it holds or is about to."""
        held = len(self.cache.ids) if self.cache is not None else 0
        return held + len(self.unrecorded) + len(self.pending)

    @property
    def is_window(self) -> bool:
        """Whether its cache is a sliding window."""
        return self.cache is not None and self.cache.config.max_size is not None

    @property
    def is_background(self) -> bool:
        return self.priority is Priority.BACKGROUND

    def start_feeding(self, ids: Ids[int]) -> None:
        """Bring the cache in line with `ids`; `pending` is then what it lacks of them."""
        assert self.cache is not None  # `open` has set it
        if self.sampler is None:
            self.pending = self.cache.begin_prefix(ids)
        else:
            self.pending = self.cache.begin(ids)
        self.is_prefilling, self.total_to_prefill = True, len(self.pending)
        self.cache.layers.expect(len(self.cache.ids) + len(self.pending))
        self.snapshot_at = None
        if self.opening and len(self.pending) > self.opening:
            self.snapshot_at = len(self.pending) - self.opening

    def record(self) -> None:
        """Note in the cache what was fed."""
        if self.cache is not None and self.unrecorded:
            self.cache.extend(self.unrecorded)
        self.unrecorded = []


@dataclass(frozen=True)
class Part:
    """A sequence's share of a pass: `count` ids fed, a draft (k,) after them."""

    sequence: Sequence
    epoch: int
    count: int
    draft: mx.array
    has_choice: bool

    @property
    def rows(self) -> int:
        """Tokens chosen: the next one, and those along the draft."""
        return self.draft.size + 1

    @property
    def is_current(self) -> bool:
        return not self.sequence.is_done and self.epoch == self.sequence.epoch
