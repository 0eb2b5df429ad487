"""The scheduler: one decoding loop for every sequence (continuous batching, Yu et al., OSDI 2022).

Each step runs one pass of the model over the next token of every running sequence and a bounded chunk of
prompts, and hands out the tokens. The weights are read once for all sequences with the same adapter. A
sequence that is alone is decoded one step ahead, and with speculation where it has a drafter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

from mlx_qwen3.errors import EngineError, Qwen3Error
from mlx_qwen3.generation.admission import Admission
from mlx_qwen3.generation.forward import Compute, DecoderModel, Ids, Pass, run_pass
from mlx_qwen3.generation.prefill import CLEAR_MEMORY_EVERY, AdaptiveChunkSize
from mlx_qwen3.generation.sampling import NOTHING
from mlx_qwen3.generation.sequence import Part, Priority, Sequence
from mlx_qwen3.generation.speculative.speculation import Speculation
from mlx_qwen3.generation.stats import Rate, SchedulerStats

# Prompts get a smaller chunk while others are decoding, so that the gap between two tokens stays short.
CHUNK_SHARE_BESIDE_OTHERS = 0.5
NOT_FINITE = "the model computed logits that are not numbers; its weights are damaged, or its dtype overflows"


class Scheduler:
    """Runs sequences on one model. For one thread alone."""

    def __init__(
        self,
        model: DecoderModel,
        size: int = 16,
        room: int = 2**62,
        nbytes: Callable[[int], int] = int,
        compute: Compute | None = None,
    ):
        """Start with nothing to do.

        Args:
            model: What computes logits.
            size: Sequences that run at once.
            room: Bytes that the KV caches of running sequences may take together. One always runs.
            nbytes: Bytes of the KV cache of so many tokens.
            compute: As of `run_pass`.
        """
        self._model, self._compute, self._pass = model, compute, cast(Pass | None, None)
        self._chunk_size = AdaptiveChunkSize()
        self._speculation = Speculation()
        self._queue = self.queue = Admission(size, room, nbytes, on_park=self._speculation.leave)
        self._passes = self._generated = 0
        self._rate = Rate()

    def add(self, sequence: Sequence) -> None:
        """Have `sequence` run as soon as there is room."""
        self._queue.waiting.append(sequence)

    @property
    def is_idle(self) -> bool:
        return not (self._queue.waiting or self._queue.running or self._pass)

    @property
    def size(self) -> int:
        """The most sequences that run at once."""
        return self._queue.size

    def stats(self) -> SchedulerStats:
        """What is going on. From any thread."""
        running = [sequence for sequence in list(self._queue.running) if not sequence.is_background]
        rate = self._rate.value if running else 0.0
        kv_bytes = sum(cache.nbytes for each in list(self._queue) if (cache := each.cache) is not None)
        return SchedulerStats(len(running), len(self._queue.waiting), rate, kv_bytes, self._generated)

    def step(self) -> bool:
        """Run a pass and hand out its tokens; return whether there is more to do."""
        self._speculation.clock.start()
        following = self._launch_ahead()
        if self._pass is not None:
            finished, self._pass = self._pass, None
            self._finish(finished, following)
        self._end_cancelled()  # only now is every token known that a cache holds
        self._pass = following or self._launch()
        self._speculation.clock.stop()
        return not self.is_idle

    def settle(self) -> None:
        """Wait for the pass under way, and let go of sequences that are done."""
        if self._pass is not None:
            finished, self._pass = self._pass, None
            self._finish(finished, None)
        for sequence in list(self._queue.running):
            if sequence.is_done:
                self._end(sequence)

    def abandon(self, error: Exception) -> None:
        """End every sequence with `error`."""
        self._pass = None
        for sequence in self._queue:
            self._fail(sequence, error)

    # Ending

    def _end_cancelled(self) -> None:
        for sequence in self._queue:
            if not sequence.is_done and sequence.is_cancelled():
                self._guarded(sequence, sequence.cancel)
                sequence.is_done = True
                self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        """`sequence` is done: settle its cache and let it go."""
        self._speculation.leave(sequence)
        sequence.record()
        self._queue.remove(sequence)
        sequence.close(None)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        if not isinstance(error, Qwen3Error):
            error = EngineError(f"generation failed: {type(error).__name__}: {error}")
        sequence.is_done = True
        self._speculation.forget(sequence)
        self._queue.remove(sequence)
        sequence.close(error)

    def _fail_part(self, part: Part, error: Exception) -> None:
        self._fail(part.sequence, error)

    def _guarded(self, sequence: Sequence, call: Callable[..., Any], *arguments: Any) -> bool:
        """Call a method of one sequence; an exception ends that one alone. Returns whether it went well."""
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001  # the others go on
            self._fail(sequence, error)
            return False
        return True

    # Passes

    def _open(self, sequence: Sequence) -> None:
        """Begin to feed a sequence that was admitted, unless it was only parked."""
        if sequence.cache is not None:
            return
        is_new = not sequence.times.admitted
        sequence.times.admitted = sequence.times.admitted or time.perf_counter()
        ids = sequence.pending
        if not self._guarded(sequence, sequence.open, ids):
            return
        sequence.start_feeding(ids)
        if not sequence.pending:
            sequence.is_done = True
            self._end(sequence)
        elif is_new:
            sequence.cached = len(ids) - len(sequence.pending)
            self._guarded(sequence, sequence.prefilled, 0, len(sequence.pending))

    def _launch(self) -> Pass | None:
        """Begin a pass over what every running sequence feeds next. The tokens before are known."""
        self._queue.make_room()
        for sequence in self._queue.admit():
            self._open(sequence)
        turn = list(self._queue.turn)
        if not turn:
            return None
        others = len(turn) > 1 or self._queue.has_waiting
        for sequence in turn if others else ():
            self._speculation.leave(sequence)
        if not others:
            self._model.scale_positions(turn[0].scaling)  # for the draft model, which may prefill now
            if self._speculation.prepares(turn[0]):
                return Pass([])
        parts, inputs = self._feeds(turn, others)
        return self._run(parts, inputs)

    def _feeds(self, turn: list[Sequence], others: bool) -> tuple[list[Part], list[Ids]]:
        budget = self._chunk_size.size
        if others and any(len(sequence.pending) == 1 for sequence in turn):
            budget = max(1, int(budget * CHUNK_SHARE_BESIDE_OTHERS))
        parts: list[Part] = []
        inputs: list[Ids] = []
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
            if not others and has_choice and count == 1 and not sequence.is_prefilling:
                draft = self._speculation.draft(sequence)
            parts.append(Part(sequence, sequence.epoch, count, draft, has_choice))
            inputs.append(ids)
        return parts, inputs

    def _launch_ahead(self) -> Pass | None:
        """Begin the pass after one that is under way, before its tokens are known."""
        under_way = self._pass
        if under_way is None or not self._may_run_ahead(under_way):
            return None
        parts: list[Part] = []
        inputs: list[Ids] = []
        for part, token in under_way.choices():
            sequence = part.sequence
            if part.is_current and sequence.sampler is not None:
                sequence.sampler.observe(token)
                parts.append(Part(sequence, sequence.epoch, 1, NOTHING, has_choice=True))
                inputs.append(token)
        return self._run(parts, inputs) if parts else None

    def _may_run_ahead(self, under_way: Pass) -> bool:
        parts = under_way.parts
        if getattr(self._model, "computes_now", False):  # a pass ahead would hold these tokens back
            return False
        if not parts or not all(
            part.has_choice and part.count == 1 and not part.draft.size for part in parts
        ):
            return False
        if any(part.sequence.is_prefilling for part in parts) or any(s.pending for s in self._queue.running):
            return False
        if len(parts) == 1 and self._speculation.will_draft(parts[0].sequence):
            return False
        if self._queue.could_admit() or any(part.sequence.is_cancelled() for part in parts):
            return False
        return self._queue.can_grow(2)

    def _run(self, parts: list[Part], inputs: list[Ids]) -> Pass | None:
        """Have the model look at `inputs`, for each part what it feeds."""
        try:
            under_way = run_pass(self._model, parts, inputs, self._fail_part, self._compute)
        except Exception as error:  # noqa: BLE001  # the engine outlives a failed pass
            for part in parts:
                self._fail(part.sequence, error)
            return None
        for sequence in (part.sequence for part in parts):
            sequence.decode_passes += not sequence.is_prefilling
            sequence.largest_batch = max(sequence.largest_batch, len(parts))
        self._passes += 1
        if self._passes % CLEAR_MEMORY_EVERY == 0:
            mx.clear_cache()
        return under_way

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
            if part.sequence.is_done and part.sequence in self._queue.running:
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
            sequence.sampler.accept_observed()
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
