"""Admission: which sequences run, which wait, and whose KV cache makes room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from mlx_qwen3.cache.prompt_cache import common_prefix
from mlx_qwen3.generation.sequence import Sequence

# Tokens that a sequence must be able to grow by to be admitted.
MARGIN = 256
# A prompt that shares so many tokens with one being prefilled waits, and copies them then.
SHARED_TOKENS = 64


class Admission:
    """The queue of sequences.

    Attributes:
        waiting: In order of arrival.
        running: In order of admission.
        size: The most sequences that run at once.
        room: Bytes that their KV caches may take together; one always runs.
        is_paused: Whether none is admitted beside those that run.
    """

    def __init__(
        self,
        size: int,
        room: int,
        nbytes: Callable[[int], int],
        on_park: Callable[[Sequence], None],
    ):
        """nbytes: bytes of the cache of so many tokens. on_park: called before a running one has to wait."""
        self.size = size
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.room, self.is_paused = room, False
        self._nbytes, self._on_park = nbytes, on_park

    def __iter__(self) -> Iterator[Sequence]:
        yield from [*self.running, *self.waiting]

    @property
    def turn(self) -> list[Sequence]:
        """The sequences whose turn it is: those in the background only while there are no others."""
        return [sequence for sequence in self.running if not sequence.is_background] or self.running

    @property
    def has_waiting(self) -> bool:
        """Whether anything but background work waits."""
        return any(not sequence.is_background for sequence in self.waiting)

    @property
    def held(self) -> int:
        """Bytes of the KV caches of all sequences."""
        return sum(self._nbytes(sequence.length) for sequence in self._holding())

    def remove(self, sequence: Sequence) -> None:
        """Forget `sequence`."""
        for group in (self.running, self.waiting):
            with suppress(ValueError):  # not there; another thread may abandon it at the same time
                group.remove(sequence)

    def admit(self) -> Iterator[Sequence]:
        """Let waiting sequences run, as far as there is place and room, and yield them."""
        if not self.waiting:
            return
        for sequence in self.running:
            sequence.record()  # so that others can copy what it holds
        for sequence in sorted(self.waiting, key=lambda sequence: sequence.priority):
            if self.is_paused and self.running:
                return
            if sequence.is_background and any(not other.is_background for other in self):
                return
            if not self._find_place(sequence) or not self._fits(sequence):
                return
            if not self._shares_unfinished(sequence):
                self.waiting.remove(sequence)
                self.running.append(sequence)
                yield sequence

    def could_admit(self) -> bool:
        """Whether a waiting sequence could run now."""
        if self.is_paused and self.running:
            return False
        for sequence in self.waiting:
            has_place = len(self.running) < self.size or any(
                other.priority > sequence.priority for other in self.running
            )
            if not sequence.is_background and has_place and self._fits(sequence):
                return True
        return False

    def can_grow(self, tokens: int) -> bool:
        """Whether every running sequence can grow by `tokens`."""
        held = sum(self._nbytes(sequence.length + tokens) for sequence in self.running)
        return held <= self.room or len(self.running) == 1

    def make_room(self) -> None:
        """Evict KV caches while they outgrow the room: of those that wait first, then of the latest."""
        while len(holding := self._holding()) > 1:
            if sum(self._nbytes(sequence.length + 1) for sequence in holding) <= self.room:
                return
            # A window cannot be prefilled again as it was, and does not grow.
            evictable = [sequence for sequence in holding if not sequence.is_window]
            if not evictable:
                return
            waiting = [sequence for sequence in evictable if sequence in self.waiting]
            lowest = max(sequence.priority for sequence in evictable)
            victims = waiting or [sequence for sequence in evictable if sequence.priority == lowest]
            self._evict(victims[-1])

    def _find_place(self, sequence: Sequence) -> bool:
        """Whether fewer than `size` run; a higher priority takes the place of the latest of the lowest."""
        if len(self.running) < self.size:
            return True
        lowest = max(other.priority for other in self.running)
        if lowest <= sequence.priority:
            return False
        self._park([other for other in self.running if other.priority == lowest][-1])
        return True

    def _fits(self, sequence: Sequence) -> bool:
        if not self.running or sequence.cache is not None:
            return True
        held = sum(self._nbytes(other.length + MARGIN) for other in self._holding())
        return held + self._nbytes(sequence.length + MARGIN) <= self.room

    def _holding(self) -> list[Sequence]:
        """The sequences that have a KV cache."""
        return [sequence for sequence in self if sequence.cache is not None]

    def _shares_unfinished(self, sequence: Sequence) -> bool:
        """Whether a prompt being prefilled begins like this one: its rows can be copied soon."""
        if sequence.cache is not None:
            return False
        return any(
            other.is_prefilling
            and not other.is_background
            and other.adapter == sequence.adapter
            and common_prefix(other.prompt_ids, sequence.prompt_ids) >= SHARED_TOKENS
            for other in self.running
        )

    def _park(self, sequence: Sequence) -> None:
        """Have a running sequence wait. It keeps its cache while there is room."""
        self._on_park(sequence)
        sequence.record()
        self.running.remove(sequence)
        self.waiting.insert(0, sequence)

    def _evict(self, sequence: Sequence) -> None:
        """Drop the cache of `sequence`. It waits, and is prefilled again."""
        if sequence in self.running:
            self._park(sequence)
        assert sequence.cache is not None  # it was chosen for that
        sequence.pending = [*sequence.cache.ids, *sequence.pending]
        sequence.cache, sequence.unrecorded = None, []
        sequence.evicted()
