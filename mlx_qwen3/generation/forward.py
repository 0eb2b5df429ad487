"""One pass of the model over new tokens of one or more sequences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import mlx.core as mx
import numpy as np

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.batch import batched_layers
from mlx_qwen3.generation.sampling import TokenLogprobs, choose_rows, logprobs_of
from mlx_qwen3.generation.sequence import Part
from mlx_qwen3.model.config import RopeScaling


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
    [DecoderModel, Sequence[mx.array], Sequence[Sequence[Cache]], Sequence[int]], mx.array | None
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
    inputs: list[mx.array],
    on_error: Callable[[Part, Exception], None],
    compute: Compute | None = None,
) -> Pass:
    """Begin a pass: nothing is waited for.

    Args:
        model: What computes logits.
        parts: The share of each sequence.
        inputs: For each part the ids (count,) it feeds; they may still be in the making.
        on_error: Told of a sequence whose sampling cannot go on.
        compute: What computes the logits; None is `logits_at`.
    """
    groups: dict[tuple[str | None, RopeScaling | None], tuple[list[Part], list[mx.array]]] = {}
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
    inputs: list[mx.array],
    on_error: Callable[[Part, Exception], None],
    compute: Compute,
) -> _Group:
    group = _Group(parts)
    fed = [
        mx.concatenate([ids, part.draft]) if part.draft.size else ids
        for part, ids in zip(parts, inputs, strict=True)
    ]
    caches = [part.sequence.cache.layers for part in parts if part.sequence.cache is not None]
    rows: list[int] = []
    start = 0
    for part, ids in zip(parts, fed, strict=True):
        if part.has_choice:
            rows += range(start + part.count - 1, start + ids.size)
        start += ids.size
    logits = compute(model, fed, caches, rows)
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


def logits_at(
    model: DecoderModel,
    fed: Sequence[mx.array],
    caches: Sequence[Sequence[Cache]],
    rows: Sequence[int],
) -> mx.array | None:
    """Logits (R, V) after some of the ids fed, which are all added to the caches.

    Args:
        model: What computes them.
        fed: The ids (count,) of each sequence.
        caches: The layers' caches of each sequence.
        rows: Numbers of the ids, counted through all of `fed`, after which logits are wanted; without any
            None is returned.
    """
    if len(rows) == sum(ids.size for ids in fed):
        inputs, layers = _together(fed, caches)
        return model(inputs, layers).reshape(inputs.size, -1)
    hidden = hidden_at(model, fed, caches, rows)
    return None if hidden is None else model.output_head(hidden[None])[0]


def hidden_at(
    model: DecoderModel,
    fed: Sequence[mx.array],
    caches: Sequence[Sequence[Cache]],
    rows: Sequence[int],
) -> mx.array | None:
    """Hidden states (R, D) in place of logits; otherwise as `logits_at`."""
    inputs, layers = _together(fed, caches)
    hidden = model.hidden_states(inputs, layers)
    return hidden.reshape(inputs.size, -1)[mx.array(list(rows))] if rows else None


def _together(fed: Sequence[mx.array], caches: Sequence[Sequence[Cache]]) -> tuple[mx.array, Sequence[Cache]]:
    """The ids of one sequence (1, L), or of several (T, 1), and the caches for them."""
    if len(fed) == 1:
        return fed[0][None], caches[0]
    return mx.concatenate(list(fed))[:, None], batched_layers(caches, [ids.size for ids in fed])
