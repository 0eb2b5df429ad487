"""One pass of the model over new tokens of one or more sequences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol, cast

import mlx.core as mx
import numpy as np

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.batch import batched_layers
from mlx_qwen3.generation.sampling import TokenLogprobs, choose_rows, logprobs_of
from mlx_qwen3.generation.sequence import Part
from mlx_qwen3.model.config import RopeScaling

Ids = mx.array | list[int]


class DecoderModel(Protocol):
    """What is asked of a model."""

    def __call__(self, inputs: mx.array, cache: Sequence[Cache]) -> mx.array:
        """Logits (B, L, V) of the token after each of `inputs` (B, L), which are added to `cache`."""

    def hidden_states(self, inputs: mx.array, cache: Sequence[Cache]) -> mx.array:
        """Hidden states (B, L, D) of `inputs`, which are added to `cache`; no logits are computed."""

    @property
    def output_head(self) -> Callable[[mx.array], mx.array]:
        """Hidden states (B, L, D) -> logits (B, L, V)."""

    def scale_positions(self, scaling: RopeScaling | None) -> None:
        """Rotate positions by `scaling` from now on."""

    def use_adapter(self, name: str | None) -> None:
        """Compute with the adapter of this name from now on; None is the model alone."""


Compute = Callable[
    [DecoderModel, mx.array, Sequence[int], Sequence[Sequence[Cache]], Sequence[int]], mx.array | None
]
"""What computes the logits of a pass: `logits_at`, or the same on several machines."""


class _Group:
    """The parts of a pass with one adapter, whose positions are scaled alike: one call of the model."""

    def __init__(self, parts: list[Part]):
        self.parts = parts
        self.choosing = [part for part in parts if part.has_choice]
        self.tokens: mx.array | None = None  # of the parts that choose, in a row
        self.peaks: mx.array | None = None  # the largest logit of each of them
        self.logprobs: tuple[mx.array, ...] = ()

    def first_rows(self) -> Iterator[tuple[Part, int]]:
        """Each part that chooses, and the row of its first token."""
        row = 0
        for part in self.choosing:
            yield part, row
            row += part.rows


class Pass:
    """A pass under way."""

    def __init__(self, groups: list[_Group]):
        self._groups = groups
        self.parts = [part for group in groups for part in group.parts]
        self._since = time.perf_counter()
        self.seconds = 0.0
        self._broken: set[int] = set()

    def choices(self) -> Iterator[tuple[Part, mx.array]]:
        """Each part that chooses, and its first token (1,), which need not be known yet."""
        for group in self._groups:
            assert group.tokens is not None
            for part, row in group.first_rows():
                yield part, group.tokens[row : row + 1]

    def wait(self) -> None:
        """Until its tokens are known, and everything else is computed that only fed ids."""
        mx.eval([[group.tokens, group.peaks, *group.logprobs] for group in self._groups if group.choosing])
        for part in self.parts:
            if part.count > 1 and part.sequence.cache is not None:
                mx.eval([layer.state for layer in part.sequence.cache.layers])
        self.seconds = time.perf_counter() - self._since
        for group in self._groups:
            finite = np.isfinite(group.peaks.tolist()) if group.peaks is not None else None
            if finite is not None and not finite.all():
                rows = group.first_rows()
                self._broken |= {id(part) for part, row in rows if not finite[row : row + part.rows].all()}

    def is_finite(self, part: Part) -> bool:
        """Whether the logits that a part chose by were numbers."""
        return id(part) not in self._broken

    def results(self) -> Iterator[tuple[Part, list[int], list[TokenLogprobs]]]:
        """Each part with its tokens: none where it only fed ids, k + 1 along a draft of k."""
        for group in self._groups:
            tokens: list[int] = group.tokens.tolist() if group.tokens is not None else []  # type: ignore[assignment]
            rows = {id(part): row for part, row in group.first_rows()}
            for part in group.parts:
                row = rows.get(id(part))
                if row is None:
                    yield part, [], []
                    continue
                stop = row + part.rows
                yield part, tokens[row:stop], _logprobs(group, part, tokens, row, stop)


def _logprobs(group: _Group, part: Part, tokens: list[int], row: int, stop: int) -> list[TokenLogprobs]:
    count = part.sequence.wants_logprobs
    if count is None:
        return []
    own, ids, values = (cast(list[Any], array.tolist()) for array in group.logprobs)
    return [
        TokenLogprobs(
            tokens[place],
            own[place],
            tuple(zip(ids[place][:count], values[place][:count], strict=True)),
        )
        for place in range(row, stop)
    ]


def run_pass(
    model: DecoderModel,
    parts: list[Part],
    inputs: list[Ids],
    on_error: Callable[[Part, Exception], None],
    compute: Compute | None = None,
) -> Pass:
    """Begin a pass: nothing is waited for.

    Args:
        model: What computes logits.
        parts: The share of each sequence.
        inputs: For each part the ids (count,) it feeds; arrays of them may still be in the making.
        on_error: Told of a sequence whose sampling cannot go on.
        compute: What computes the logits; None is `logits_at`.
    """
    groups: dict[tuple[str | None, RopeScaling | None], tuple[list[Part], list[Ids]]] = {}
    for part, ids in zip(parts, inputs, strict=True):
        own = groups.setdefault((part.sequence.adapter, part.sequence.scaling), ([], []))
        own[0].append(part)
        own[1].append(ids)
    launched = []
    for (adapter, scaling), (members, fed) in groups.items():
        model.use_adapter(adapter)
        model.scale_positions(scaling)
        launched.append(_launch(model, members, fed, on_error, compute or logits_at))
    return Pass(launched)


def _launch(
    model: DecoderModel,
    parts: list[Part],
    inputs: list[Ids],
    on_error: Callable[[Part, Exception], None],
    compute: Compute,
) -> _Group:
    group = _Group(parts)
    caches = [part.sequence.cache.layers for part in parts if part.sequence.cache is not None]
    fed: list[Ids] = []
    rows: list[int] = []
    start = 0
    lengths = [part.count + part.draft.size for part in parts]
    for part, ids, length in zip(parts, inputs, lengths, strict=True):
        fed += [ids, part.draft] if part.draft.size else [ids]
        if part.has_choice:
            rows += range(start + part.count - 1, start + length)
        start += length
    logits = compute(model, joined(fed, len(parts) == 1), lengths, caches, rows)
    arrays: list[mx.array] = []
    if group.choosing and logits is not None:
        samplers: list[Any] = [part.sequence.sampler for part in group.choosing]
        drafts = [part.draft for part in group.choosing]
        group.tokens = choose_rows(
            samplers, drafts, logits, lambda number, error: on_error(group.choosing[number], error)
        )
        group.peaks = logits.max(axis=-1)
        arrays += [group.tokens, group.peaks]
        wanted = [part.sequence.wants_logprobs for part in group.choosing]
        if any(count is not None for count in wanted):
            group.logprobs = logprobs_of(logits, group.tokens, max(count or 0 for count in wanted))
            arrays += group.logprobs
    for part in parts:
        if not part.has_choice and part.sequence.cache is not None:
            arrays += [layer.state for layer in part.sequence.cache.layers]
    mx.async_eval(arrays)  # type: ignore[no-untyped-call]
    return group


def joined(pieces: Sequence[Ids], is_alone: bool) -> mx.array:
    """The ids of a pass: (1, L) of a sequence that is alone, else (T, 1). If all are known, nothing is left
    to compute."""
    shape = (1, -1) if is_alone else (-1, 1)
    if any(isinstance(ids, mx.array) for ids in pieces):
        arrays = [ids if isinstance(ids, mx.array) else mx.array(ids, mx.uint32) for ids in pieces]
        return (mx.concatenate(arrays) if len(arrays) > 1 else arrays[0]).reshape(shape)
    ids = list(chain.from_iterable(cast(Sequence[list[int]], pieces)))
    return mx.array(np.array(ids, np.uint32).reshape(shape))


def logits_at(
    model: DecoderModel,
    ids: mx.array,
    lengths: Sequence[int],
    caches: Sequence[Sequence[Cache]],
    rows: Sequence[int],
) -> mx.array | None:
    """Logits (R, V) after some of the ids fed, which are all added to the caches.

    Args:
        model: What computes them.
        ids: (1, L) of one sequence, or (T, 1) of several, one after another.
        lengths: How many each sequence has.
        caches: The layers' caches of each sequence.
        rows: Numbers of the ids, counted through all of them, after which logits are wanted; without any
            None is returned.
    """
    if len(rows) == ids.size:
        return model(ids, _layers(lengths, caches)).reshape(ids.size, -1)
    hidden = hidden_at(model, ids, lengths, caches, rows)
    return None if hidden is None else model.output_head(hidden[None])[0]


def hidden_at(
    model: DecoderModel,
    ids: mx.array,
    lengths: Sequence[int],
    caches: Sequence[Sequence[Cache]],
    rows: Sequence[int],
) -> mx.array | None:
    """Hidden states (R, D) in place of logits; otherwise as `logits_at`."""
    hidden = model.hidden_states(ids, _layers(lengths, caches))
    return hidden.reshape(ids.size, -1)[mx.array(list(rows))] if rows else None


def _layers(lengths: Sequence[int], caches: Sequence[Sequence[Cache]]) -> Sequence[Cache]:
    """Each layer's cache, of one sequence or of all."""
    return caches[0] if len(lengths) == 1 else batched_layers(caches, lengths)
