"""Speculative decoding of a sequence that is alone: several tokens from one pass, the same as without.

A pass reads all weights whether it looks at one token or at eight. So a drafter proposes the next
tokens, the model verifies them in one pass, and as far as both agree the draft is accepted; the model's
own token after that comes for free (https://arxiv.org/abs/2211.17192). Every token is the model's own
choice, drawn with the noise of its place (sampling.py), so a draft changes nothing but the time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import mlx.core as mx

from mlx_qwen3.cache.prompt_cache import common_prefix
from mlx_qwen3.generation.sampling import NOTHING
from mlx_qwen3.generation.sequence import Sequence


class Speculation:
    """Drafts for whichever sequence is alone."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._sequence: Sequence | None = None  # whose drafter knows all of its text
        self._preparing: Iterator[int] | None = None

    def prepares(self, sequence: Sequence) -> bool:
        """Let the drafter of `sequence` learn its text, a chunk at a call; True while there is more."""
        drafter = sequence.drafter
        if (
            drafter is None
            or sequence is self._sequence
            or sequence.is_prefilling
            or len(sequence.pending) != 1
        ):
            return False
        assert sequence.cache is not None
        if self._preparing is None:
            sequence.record()
            self._preparing = drafter.begin(list(sequence.cache.ids))
        if next(self._preparing, None) is not None:
            return True
        self._preparing = None
        drafter.extend(sequence.pending[0])
        # One row more than a draft: the token before it is part of the same pass.
        sequence.keeps_undo = sequence.cache.layers.keep_for_rollback(drafter.pace.longest + 1) - 1
        self._sequence = sequence
        self.clock.lap()
        return False

    def will_draft(self, sequence: Sequence) -> bool:
        """Whether the next token should be known before the next pass, so that a draft can follow it."""
        if sequence.drafter is None:
            return False
        if sequence is not self._sequence:
            return True
        return bool(sequence.drafter.pace.length()) and sequence.drafter.has_draft()

    def draft(self, sequence: Sequence) -> mx.array:
        """The tokens (k,) that may follow what `sequence` feeds next."""
        if sequence is not self._sequence or sequence.drafter is None or sequence.sampler is None:
            return NOTHING
        length = min(sequence.drafter.pace.length(), sequence.keeps_undo)
        return sequence.drafter.draft(length, sequence.sampler) if length else NOTHING

    def verify(self, sequence: Sequence, draft: mx.array, tokens: list[int]) -> int:
        """How many tokens of a draft the model chose too; the others leave the cache."""
        if sequence is not self._sequence or sequence.drafter is None:
            return 0
        proposed: list[int] = draft.tolist()  # type: ignore[assignment]
        accepted = common_prefix(proposed, tokens)
        self.drop(sequence, len(proposed) - accepted)
        sequence.drafter.pace.learn(len(proposed), accepted, self.clock.lap())
        sequence.drafted += len(proposed)
        sequence.accepted += accepted
        return accepted

    def drop(self, sequence: Sequence, count: int) -> None:
        """Take the latest `count` tokens out of the cache."""
        if count and sequence.cache is not None:
            sequence.cache.layers.roll_back(count)

    def extend(self, sequence: Sequence, token: int) -> None:
        """`token` is part of the text of `sequence`."""
        if sequence is self._sequence and sequence.drafter is not None:
            sequence.drafter.extend(token)

    def leave(self, sequence: Sequence) -> None:
        """`sequence` is no longer alone, or has ended: its drafter and cache hold nothing unsaid."""
        if sequence is not self._sequence:
            return
        if sequence.drafter is not None:
            sequence.drafter.discard()
        if sequence.cache is not None:
            sequence.cache.layers.keep_for_rollback(0)
        self.forget(sequence)

    def forget(self, sequence: Sequence) -> None:
        """Drop what is known of `sequence`, whose cache and drafter are void."""
        if sequence is self._sequence:
            self._sequence = None
        self._preparing = None


class Clock:
    """Seconds spent, with pauses."""

    def __init__(self) -> None:
        self._spent = self._since = 0.0
        self._is_running = False

    def start(self) -> None:
        self._since, self._is_running = time.perf_counter(), True

    def stop(self) -> None:
        if self._is_running:
            self._spent += time.perf_counter() - self._since
            self._is_running = False

    def lap(self) -> float:
        """Seconds since the last lap, pauses left out."""
        was_running = self._is_running
        self.stop()
        spent, self._spent = self._spent, 0.0
        if was_running:
            self.start()
        return spent
