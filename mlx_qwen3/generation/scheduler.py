"""The scheduler: one decoding loop for every sequence (continuous batching, Yu et al., OSDI 2022).

Each step runs one pass of the model over the next token of every running sequence and a bounded chunk of
prompts, and hands out the tokens. The weights are read once for all. A sequence that is alone is decoded
one step ahead, and with speculation where it has a drafter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from mlx_qwen3.cache.prompt_cache import common_prefix
from mlx_qwen3.errors import EngineError, Qwen3Error
from mlx_qwen3.generation.forward import DecoderModel, Pass, run_pass
from mlx_qwen3.generation.prefill import CLEAR_MEMORY_EVERY, AdaptiveChunkSize
from mlx_qwen3.generation.sampling import NOTHING
from mlx_qwen3.generation.sequence import Part, Priority, Sequence
from mlx_qwen3.generation.speculative.speculation import Speculation

# Tokens that a sequence must be able to grow by to be admitted.
MARGIN = 256
# A prompt that shares so many tokens with one being prefilled waits, and copies them then.
SHARED_TOKENS = 64
# Prompts get a smaller chunk while others are decoding, so that the gap between two tokens stays short.
CHUNK_SHARE_BESIDE_OTHERS = 0.5
RATE_SECONDS = 2.0
NOT_FINITE = "the model computed logits that are not numbers; its weights are damaged, or its dtype overflows"


@dataclass
class SchedulerStats:
    """What the scheduler is doing. tokens_per_second: of all sequences, lately. kv_bytes: of their caches."""

    running: int = 0
    waiting: int = 0
    tokens_per_second: float = 0.0
    kv_bytes: int = 0
    generated: int = 0


@dataclass
class _Rate:
    """Tokens a second over the last seconds in which there was work."""

    tokens: int = 0
    since: float = field(default_factory=time.perf_counter)
    value: float = 0.0

    def add(self, count: int) -> None:
        self.tokens += count
        spent = time.perf_counter() - self.since
        if spent > RATE_SECONDS:
            self.value, self.tokens, self.since = self.tokens / spent, 0, time.perf_counter()


class Scheduler:
    """Runs sequences on one model. For one thread alone."""

    def __init__(
        self, model: DecoderModel, size: int = 16, room: int = 2**62, nbytes: Callable[[int], int] = int
    ):
        """Start with nothing to do.

        Args:
            model: What computes logits.
            size: Sequences that run at once.
            room: Bytes that the KV caches of running sequences may take together. One always runs.
            nbytes: Bytes of the KV cache of so many tokens.
        """
        self._model, self.size, self.room, self._nbytes = model, size, room, nbytes
        self._waiting: list[Sequence] = []  # in order of arrival
        self._running: list[Sequence] = []  # in order of admission
        self._pass: Pass | None = None
        self._chunk_size = AdaptiveChunkSize()
        self._speculation = Speculation()
        self._passes = self._generated = 0
        self._rate = _Rate()

    def add(self, sequence: Sequence) -> None:
        """Have `sequence` run as soon as there is room."""
        self._waiting.append(sequence)

    @property
    def is_idle(self) -> bool:
        return not (self._waiting or self._running or self._pass)

    def stats(self) -> SchedulerStats:
        running = [sequence for sequence in self._running if not sequence.is_background]
        kv_bytes = sum(sequence.cache.nbytes for sequence in self._running if sequence.cache is not None)
        rate = self._rate.value if running else 0.0
        return SchedulerStats(len(running), len(self._waiting), rate, kv_bytes, self._generated)

    def step(self) -> bool:
        """Run a pass and hand out its tokens; return whether there is more to do."""
        self._speculation.clock.start()
        self._end_cancelled()
        following = self._launch_ahead()
        if self._pass is not None:
            finished, self._pass = self._pass, None
            self._finish(finished, following)
        self._pass = following or self._launch()
        self._speculation.clock.stop()
        return not self.is_idle

    def settle(self) -> None:
        """Wait for the pass under way, and let go of sequences that are done."""
        if self._pass is not None:
            finished, self._pass = self._pass, None
            self._finish(finished, None)
        for sequence in list(self._running):
            if sequence.is_done:
                self._end(sequence)

    def abandon(self, error: Exception) -> None:
        """End every sequence with `error`."""
        for sequence in [*self._running, *self._waiting]:
            self._fail(sequence, error)
        self._waiting, self._running, self._pass = [], [], None

    # Ending

    def _end_cancelled(self) -> None:
        for sequence in [*self._running, *self._waiting]:
            if not sequence.is_done and sequence.is_cancelled():
                self._guarded(sequence, sequence.cancel)
                sequence.is_done = True
                self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        """`sequence` is done: settle its cache and let it go."""
        self._speculation.leave(sequence)
        sequence.record()
        self._remove(sequence)
        sequence.close(None)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        if not isinstance(error, Qwen3Error):
            error = EngineError(f"generation failed: {type(error).__name__}: {error}")
        sequence.is_done = True
        self._speculation.forget(sequence)
        self._remove(sequence)
        sequence.close(error)

    def _remove(self, sequence: Sequence) -> None:
        for group in (self._running, self._waiting):
            if sequence in group:
                group.remove(sequence)

    def _guarded(self, sequence: Sequence, call: Callable[..., Any], *arguments: Any) -> bool:
        """Call a method of one sequence; an exception ends that one alone. Returns whether it went well."""
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001  # the others go on
            self._fail(sequence, error)
            return False
        return True

    # Admission

    def _admit(self) -> None:
        if not self._waiting:
            return
        for sequence in self._running:
            sequence.record()  # so that others can copy what it holds
        for sequence in sorted(self._waiting, key=lambda sequence: sequence.priority):
            if sequence.is_background and any(not other.is_background for other in self._all()):
                break
            if not self._has_place(sequence) or not self._fits(sequence):
                break
            if not self._shares_unfinished(sequence):
                self._open(sequence)

    def _all(self) -> Iterator[Sequence]:
        yield from self._running
        yield from self._waiting

    def _has_place(self, sequence: Sequence) -> bool:
        """Whether fewer than `size` run; one of higher priority takes the place of the latest lower one."""
        if len(self._running) < self.size:
            return True
        lowest = max(other.priority for other in self._running)
        if lowest <= sequence.priority:
            return False
        self._park([other for other in self._running if other.priority == lowest][-1])
        return True

    def _fits(self, sequence: Sequence) -> bool:
        if not self._running or sequence.cache is not None:
            return True
        held = sum(self._nbytes(other.length + MARGIN) for other in self._holding())
        return held + self._nbytes(sequence.length + MARGIN) <= self.room

    def _holding(self) -> list[Sequence]:
        """The sequences that have a cache."""
        return [sequence for sequence in self._all() if sequence.cache is not None]

    def _shares_unfinished(self, sequence: Sequence) -> bool:
        """Whether a prompt being prefilled begins like this one: then its rows can be copied soon."""
        if sequence.cache is not None:
            return False
        prefilling = [other for other in self._running if other.is_prefilling and not other.is_background]
        least = min(SHARED_TOKENS, len(sequence.prompt_ids) // 2 + 1)
        return any(
            common_prefix(other.prompt_ids, sequence.prompt_ids) >= max(SHARED_TOKENS, least)
            for other in prefilling
        )

    def _open(self, sequence: Sequence) -> None:
        self._waiting.remove(sequence)
        self._running.append(sequence)
        if sequence.cache is not None:  # parked, not evicted
            return
        is_new = not sequence.times.admitted
        sequence.times.admitted = sequence.times.admitted or time.perf_counter()
        ids = sequence.pending
        if not self._guarded(sequence, sequence.open, ids):
            return
        assert sequence.cache is not None  # `open` has set it
        if sequence.sampler is None:  # with an id that is never fed, `begin` leaves none over
            feed = sequence.cache.begin_prefix(ids)
            if not feed:
                sequence.is_done = True
                self._end(sequence)
                return
        else:
            feed = sequence.cache.begin(ids)
        sequence.pending, sequence.is_prefilling = feed, True
        sequence.total_to_prefill = len(feed)
        sequence.snapshot_at = None
        if sequence.opening and len(feed) > sequence.opening:
            sequence.snapshot_at = len(feed) - sequence.opening
        if is_new:
            sequence.cached = len(ids) - len(feed)
            self._guarded(sequence, sequence.prefilled, 0, len(feed))

    def _park(self, sequence: Sequence) -> None:
        """Have a running sequence wait; it keeps its cache while there is room."""
        self._speculation.leave(sequence)
        sequence.record()
        self._running.remove(sequence)
        self._waiting.insert(0, sequence)

    def _make_room(self) -> None:
        """Evict caches while they outgrow the room: of those that wait first, then of the latest."""
        while len(holding := self._holding()) > 1:
            if sum(self._nbytes(sequence.length + 1) for sequence in holding) <= self.room:
                return
            # A window cannot be prefilled again as it was, and does not grow.
            evictable = [other for other in holding if not other.is_window]
            if not evictable:
                return
            waiting = [sequence for sequence in evictable if sequence in self._waiting]
            latest = max(sequence.priority for sequence in evictable)
            victims = waiting or [sequence for sequence in evictable if sequence.priority == latest]
            self._evict(victims[-1])

    def _evict(self, sequence: Sequence) -> None:
        """Drop the cache of `sequence`; it waits, and is prefilled again."""
        if sequence in self._running:
            self._park(sequence)
        assert sequence.cache is not None
        sequence.pending = [*sequence.cache.ids, *sequence.pending]
        sequence.cache, sequence.unrecorded = None, []
        sequence.evicted()

    # Passes

    def _launch(self) -> Pass | None:
        """Begin a pass over what every running sequence feeds next. The tokens before are known."""
        self._make_room()
        self._admit()
        turn = [sequence for sequence in self._running if not sequence.is_background] or self._running
        if not turn:
            return None
        others = len(turn) > 1 or any(not sequence.is_background for sequence in self._waiting)
        for sequence in turn if others else ():
            self._speculation.leave(sequence)
        if not others:
            self._model.scale_positions(turn[0].scaling)  # for the draft model, which may prefill now
            if self._speculation.prepares(turn[0]):
                return Pass([])
        parts, inputs = self._feeds(turn, others)
        return self._run(parts, inputs)

    def _feeds(self, turn: list[Sequence], others: bool) -> tuple[list[Part], list[mx.array]]:
        budget = self._chunk_size.size
        if others and any(len(sequence.pending) == 1 for sequence in turn):
            budget = max(1, int(budget * CHUNK_SHARE_BESIDE_OTHERS))
        parts, inputs = [], []
        for sequence in sorted(turn, key=lambda sequence: (len(sequence.pending) > 1, sequence.priority)):
            count = len(sequence.pending)
            if count > 1:
                count = min(count, budget, sequence.snapshot_at or count)
                budget -= count
            if not count:
                continue
            ids, sequence.pending = sequence.pending[:count], sequence.pending[count:]
            sequence.unrecorded += ids
            has_choice = not sequence.pending and sequence.sampler is not None
            draft = NOTHING
            if not others and has_choice and not sequence.is_prefilling:
                draft = self._speculation.draft(sequence)
            parts.append(Part(sequence, sequence.epoch, count, draft, has_choice))
            inputs.append(mx.array(ids, mx.uint32))
        return parts, inputs

    def _launch_ahead(self) -> Pass | None:
        """Begin the pass after one that is under way, before its tokens are known."""
        under_way = self._pass
        if under_way is None or not self._may_run_ahead(under_way):
            return None
        parts, inputs = [], []
        for part, token in under_way.choices():
            sequence = part.sequence
            if part.is_current and sequence.sampler is not None:
                sequence.sampler.observe(token)
                parts.append(Part(sequence, sequence.epoch, 1, NOTHING, has_choice=True))
                inputs.append(token)
        return self._run(parts, inputs) if parts else None

    def _may_run_ahead(self, under_way: Pass) -> bool:
        parts = under_way.parts
        if not parts or not all(
            part.has_choice and part.count == 1 and not part.draft.size for part in parts
        ):
            return False
        if any(part.sequence.is_prefilling for part in parts) or any(s.pending for s in self._running):
            return False
        if len(parts) == 1 and self._speculation.will_draft(parts[0].sequence):
            return False
        if any(self._could_admit(sequence) for sequence in self._waiting):
            return False
        held = sum(self._nbytes(sequence.length + 2) for sequence in self._running)
        return held <= self.room or len(self._running) == 1

    def _could_admit(self, sequence: Sequence) -> bool:
        if sequence.is_background:
            return False
        has_place = len(self._running) < self.size or any(
            other.priority > sequence.priority for other in self._running
        )
        return has_place and self._fits(sequence)

    def _run(self, parts: list[Part], inputs: list[mx.array]) -> Pass | None:
        """Have the model look at `inputs`, for each part what it feeds."""
        try:
            under_way = run_pass(self._model, parts, inputs, self._fail_sampling)
        except Exception as error:  # noqa: BLE001  # the engine outlives a failed pass
            for part in parts:
                self._fail(part.sequence, error)
            return None
        for part in parts:
            part.sequence.decode_passes += not part.sequence.is_prefilling
            part.sequence.largest_batch = max(part.sequence.largest_batch, len(parts))
        self._passes += 1
        if self._passes % CLEAR_MEMORY_EVERY == 0:
            mx.clear_cache()
        return under_way

    def _fail_sampling(self, part: Part, error: Exception) -> None:
        self._fail(part.sequence, error)

    def _finish(self, finished: Pass, following: Pass | None) -> None:
        """Wait for a pass, and hand its tokens out."""
        try:
            finished.wait()
        except Exception as error:  # noqa: BLE001  # what was computed with it is void
            for part in [*finished.parts, *(following.parts if following else ())]:
                if not part.sequence.is_done:
                    self._fail(part.sequence, error)
            return
        fed = sum(part.count for part in finished.parts if part.count > 1)
        if fed:
            self._chunk_size.record(fed, finished.seconds)
            mx.clear_cache()
        ahead = {id(part.sequence) for part in following.parts} if following else set()
        for part, tokens, logprobs in finished.results():
            if part.is_current and not finished.is_finite(part):
                self._fail(part.sequence, EngineError(NOT_FINITE))
            if part.is_current and part.sequence.is_prefilling:
                self._progress(part)
            if part.is_current and part.has_choice:
                self._hand_out(part, tokens, logprobs, is_ahead=id(part.sequence) in ahead)
            if part.sequence.is_done and part.sequence in self._running:
                self._end(part.sequence)

    def _progress(self, part: Part) -> None:
        sequence = part.sequence
        assert sequence.cache is not None
        sequence.record()
        done = sequence.total_to_prefill - len(sequence.pending)
        if sequence.snapshot_at is not None:
            sequence.snapshot_at -= part.count
            if sequence.snapshot_at <= 0:
                sequence.cache.take_snapshot()
                sequence.snapshot_at = None
        if not sequence.generated:
            self._guarded(sequence, sequence.prefilled, done, sequence.total_to_prefill)
            if (forced := sequence.take_forced()) is not None:
                sequence.epoch += 1
                sequence.pending = forced
        if done == sequence.total_to_prefill and not sequence.is_done:
            sequence.is_prefilling = False
            sequence.times.prefilled = sequence.times.prefilled or time.perf_counter()
            sequence.is_done = sequence.sampler is None

    def _hand_out(self, part: Part, tokens: list[int], logprobs: list[Any], is_ahead: bool) -> None:
        """Give a sequence its tokens: the accepted ones of its draft, and the model's own after them."""
        sequence = part.sequence
        assert sequence.cache is not None and sequence.sampler is not None  # noqa: PT018  # it was fed
        accepted = self._speculation.verify(sequence, part.draft, tokens)
        for place, token in enumerate(tokens[: accepted + 1]):
            is_fed = is_ahead or place < accepted
            if is_fed:
                sequence.unrecorded.append(token)
            if not is_ahead:
                sequence.sampler.observe(token)
            self._speculation.extend(sequence, token)
            sequence.generated += 1
            self._generated += 1
            self._rate.add(1)
            sequence.times.first_token = sequence.times.first_token or time.perf_counter()
            self._speculation.clock.stop()
            went_well = self._guarded(sequence, sequence.take, token, logprobs[place] if logprobs else None)
            self._speculation.clock.start()
            if not went_well:
                return
            forced = sequence.take_forced()
            if sequence.is_done or forced is not None:
                self._speculation.drop(sequence, max(0, accepted - place - 1))
                if forced is not None:
                    sequence.epoch += 1
                    sequence.pending = forced if is_fed else [token, *forced]
                    for id_ in forced:
                        self._speculation.extend(sequence, id_)
                return
        if not is_ahead:
            sequence.pending = [tokens[accepted]]


__all__ = ["Part", "Priority", "Scheduler", "SchedulerStats", "Sequence"]
