"""From logits to the next token.

The order is transformers': penalties, temperature, top_k, top_p, min_p. With top_k first among the
filters, everything after it works on k candidates and never on the whole vocabulary.

A token is drawn by adding Gumbel noise to its candidates' logits and taking the greatest, which
follows the softmax exactly. The noise depends on the seed, the token's place in the output and the
candidate, and on nothing else. So speculation and batching do not change the text: a draft model
mostly draws for a place what the model itself draws there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, Protocol

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import compiled_on_gpu
from mlx_qwen3.generation.filters import draw
from mlx_qwen3.generation.params import SamplingParams

NOTHING = mx.array([], mx.uint32)  # data, not an operation, so any thread may use it
"""No draft."""


class Constraint(Protocol):
    """Says which tokens may come next. Told of each token once it is part of the output for certain."""

    def mask(self) -> mx.array | None:
        """True (V,) where a token may come next; None while every token may."""

    def accept(self, token: int) -> None:
        """`token` was generated."""

    def rollback(self, count: int) -> None:
        """Undo the latest `count` calls of `accept`."""


class TokenLogprobs(NamedTuple):
    """Log probabilities at one place of the output, by the model's own distribution.

    token: the id generated. logprob: of it. top: the likeliest ids and theirs, likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """Chooses the tokens of one sequence. Lazy: nothing is evaluated, so decoding can run ahead.

    The choice depends on the logits, the seed and the tokens observed. With a constraint, the mask is
    computed on the CPU while the device computes the logits.
    """

    def __init__(
        self,
        params: SamplingParams,
        vocab_size: int,
        constraint: Constraint | None = None,
        eos_token_ids: Sequence[int] = (),
    ):
        """eos_token_ids: what `min_tokens` keeps from being generated."""
        self.params = params
        self.constraint = constraint
        self.draw_params = draw_params(params)
        self._seed = time.time_ns() if params.seed is None else params.seed
        self._counts = mx.zeros((vocab_size,), mx.int32) if params.has_penalties else None
        self._bias = [(token, number) for token, number in params.logit_bias if token < vocab_size]
        self._bias_of_ends = [(token, -math.inf) for token in eos_token_ids if token < vocab_size]
        self._observed = 0
        self._unaccepted: list[mx.array | int] = []  # observed, and not yet told to the constraint

    @property
    def has_adjustments(self) -> bool:
        """Whether `adjusted` changes anything."""
        return self.constraint is not None or self._counts is not None

    def __call__(self, logits: mx.array) -> mx.array:
        """logits (V,) -> the id of the next token, a scalar array."""
        return choose_rows([self], [NOTHING], logits[None])[0]

    def guess(self, logits: mx.array, draft: mx.array) -> mx.array:
        """The token (1,) that a draft model with logits (1, V) proposes after a draft (k,)."""
        logits = biased(logits, [self.bias(draft.size)])
        logits = self._penalized(logits, draft, rows=slice(draft.size, None))
        return draw_rows(logits, [self.key(draft.size)], self.draw_params)

    def observe(self, token: mx.array | int) -> None:
        """Count `token` as part of the output."""
        self._observed += 1
        if self._counts is not None:
            self._counts = self._counts.at[token].add(1)
        if self.constraint is not None:
            self._unaccepted.append(token)

    def accept_observed(self) -> None:
        """Tell the constraint of the tokens observed; waits for those that are not computed yet."""
        if self.constraint is not None:
            for token in self._unaccepted:
                self.constraint.accept(int(token.item()) if isinstance(token, mx.array) else token)  # type: ignore[arg-type]
            self._unaccepted.clear()

    def key(self, place: int) -> tuple[int, int]:
        """The random key of the token that comes `place` tokens after the next."""
        return place_key(self._seed, self._observed + place)

    def bias(self, place: int) -> list[tuple[int, float]]:
        """Ids, and what is added to their logits where the token `place` tokens after the next is chosen."""
        is_early = self._observed + place < self.params.min_tokens and self.constraint is None
        return self._bias + self._bias_of_ends if is_early else self._bias

    def adjusted(self, logits: mx.array, draft: mx.array) -> mx.array:
        """Biased logits (k + 1, V) of the places after none, one, ... all of a draft (k,), constrained and
        penalized."""
        if self.constraint is not None:
            logits = self._constrain(logits, draft, self.constraint)
        return self._penalized(logits, draft)

    def _penalized(self, logits: mx.array, draft: mx.array, rows: slice = slice(None)) -> mx.array:
        if self._counts is not None:
            counts = self._counts[None] if draft.size == 0 else counts_along(self._counts, draft)
            logits = penalize(logits, counts[rows], self.params)
        return logits

    def _constrain(self, logits: mx.array, draft: mx.array, constraint: Constraint) -> mx.array:
        self.accept_observed()
        masks = masks_along(constraint, draft.tolist())  # type: ignore[arg-type]
        if all(mask is None for mask in masks):
            return logits
        free = mx.ones(logits.shape[-1:], mx.bool_)
        rows = [free if mask is None else mask for mask in masks]
        rows += [free] * (logits.shape[0] - len(rows))
        return mx.where(mx.stack(rows), logits, -mx.inf)


def choose_rows(
    samplers: Sequence[Sampler],
    drafts: Sequence[mx.array],
    logits: mx.array,
    on_error: Callable[[int, Exception], None] | None = None,
) -> mx.array:
    """The next tokens of several sequences, and those along their drafts.

    Args:
        samplers: One for each sequence.
        drafts: The drafts (k_i,) of the sequences, `NOTHING` where there is none.
        logits: (R, V); k_i + 1 rows for each sequence, the first of them for its next token.
        on_error: Called with the number of a sequence whose logits cannot be adjusted, and why; its tokens
            then mean nothing. None raises what went wrong.

    Returns:
        Tokens (R,), uint32. As far as they agree with a sequence's draft, they are what would have been
        chosen one by one; after the first disagreement they mean nothing.
    """
    starts = [0]
    for draft in drafts:
        starts.append(starts[-1] + draft.size + 1)
    if any(sampler.constraint is not None for sampler in samplers):
        mx.async_eval(logits)  # type: ignore[no-untyped-call]  # masks are computed meanwhile
    places = [
        (sampler, place)
        for sampler, draft in zip(samplers, drafts, strict=True)
        for place in range(draft.size + 1)
    ]
    logits = biased(logits, [sampler.bias(place) for sampler, place in places])
    if any(sampler.has_adjustments for sampler in samplers):
        rows = [logits[start:stop] for start, stop in pairwise(starts)]
        for number, sampler in enumerate(samplers):
            try:
                rows[number] = sampler.adjusted(rows[number], drafts[number])
            except Exception as error:
                if on_error is None:
                    raise
                on_error(number, error)
        logits = mx.concatenate(rows) if len(rows) > 1 else rows[0]
    groups: dict[SamplingParams, list[int]] = {}
    for row, (sampler, _) in enumerate(places):
        groups.setdefault(sampler.draw_params, []).append(row)
    if len(groups) == 1 and samplers[0].draw_params.temperature == 0:
        return mx.argmax(logits, axis=-1)
    keys = [sampler.key(place) for sampler, place in places]
    if len(groups) == 1:
        return draw_rows(logits, keys, samplers[0].draw_params)
    order = [row for numbers in groups.values() for row in numbers]
    tokens = mx.concatenate(
        [
            draw_rows(logits[mx.array(numbers)], [keys[row] for row in numbers], params)
            for params, numbers in groups.items()
        ]
    )
    return tokens[mx.array(np.argsort(order).astype(np.uint32))]


def draw_rows(logits: mx.array, keys: Sequence[tuple[int, int]], params: SamplingParams) -> mx.array:
    """A token (R,), uint32, for each row of logits (R, V) and its key."""
    if params.temperature == 0:
        return mx.argmax(logits, axis=-1)
    return _drawing(params)(logits, mx.array(np.array(keys, np.uint32)))


# What does not concern drawing a token from logits. Every other parameter does.
BESIDE_DRAWING = (
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "min_tokens"),
    *("max_tokens", "seed", "stop", "logprobs", "top_logprobs"),
)


def draw_params(params: SamplingParams) -> SamplingParams:
    """What of `params` concerns drawing: equal for sequences whose tokens can be drawn together."""
    if params.temperature == 0:
        return SamplingParams(temperature=0)
    default = SamplingParams()
    return replace(params, **{name: getattr(default, name) for name in BESIDE_DRAWING})


@lru_cache(maxsize=64)
def _drawing(params: SamplingParams) -> Callable[[mx.array, mx.array], mx.array]:
    each: Callable[[mx.array, mx.array], mx.array]
    each = mx.vmap(lambda row, key: draw(row, key, params))

    def drawn(logits: mx.array, keys: mx.array) -> mx.array:
        if logits.shape[0] == 1:  # without the cost of a batched sort
            return draw(logits[0], keys[0], params)[None]
        return each(logits, keys)

    return compiled_on_gpu(drawn)


def place_key(seed: int, place: int) -> tuple[int, int]:
    """The random key of a place: SplitMix64 (Steele et al., OOPSLA 2014) of seed and place.

    Computed by Python: the device is given keys as data, and nothing has to be kept.
    """
    mask = 0xFFFF_FFFF_FFFF_FFFF
    z = (seed + (place + 1) * 0x9E37_79B9_7F4A_7C15) & mask
    z = ((z ^ z >> 30) * 0xBF58_476D_1CE4_E5B9) & mask
    z = ((z ^ z >> 27) * 0x94D0_49BB_1331_11EB) & mask
    z ^= z >> 31
    return z >> 32, z & 0xFFFF_FFFF


def logprobs_of(logits: mx.array, tokens: mx.array, count: int) -> tuple[mx.array, mx.array, mx.array]:
    """Log probabilities (R,) of `tokens` (R,) by logits (R, V), and the `count` likeliest ids and theirs."""
    logits = logits.astype(mx.float32)
    total = mx.logsumexp(logits, axis=-1, keepdims=True)
    own = (mx.take_along_axis(logits, tokens[:, None], axis=-1) - total)[:, 0]
    if not count:
        nothing = mx.zeros((logits.shape[0], 0))
        return own, nothing.astype(mx.uint32), nothing
    ids = mx.argsort(-logits, axis=-1)[:, :count]
    return own, ids, mx.take_along_axis(logits, ids, axis=-1) - total


def masks_along(constraint: Constraint, draft: Sequence[int]) -> list[mx.array | None]:
    """The masks after none, one, ... of the tokens of `draft`, up to the first that may not come."""
    masks, accepted = [constraint.mask()], 0
    for token in draft:
        if (mask := masks[-1]) is not None and not np.asarray(mask)[token]:
            break
        constraint.accept(token)
        accepted += 1
        masks.append(constraint.mask())
    if accepted:
        constraint.rollback(accepted)
    return masks


def counts_along(counts: mx.array, draft: mx.array) -> mx.array:
    """Uses of each token (k + 1, V) after none, one, ... all of a draft (k,), `counts` (V,) before it."""
    used = draft[:, None] == mx.arange(counts.size)
    return mx.concatenate([counts[None], counts + mx.cumsum(used.astype(counts.dtype), axis=0)])


def biased(logits: mx.array, biases: Sequence[Sequence[tuple[int, float]]]) -> mx.array:
    """Logits (R, V) with a bias for each row: ids, and what is added to theirs."""
    rows = [row for row, bias in enumerate(biases) for _ in bias]
    if not rows:
        return logits
    ids, numbers = zip(*(pair for bias in biases for pair in bias), strict=True)
    return logits.astype(mx.float32).at[mx.array(rows), mx.array(ids)].add(mx.array(numbers))


def penalize(logits: mx.array, counts: mx.array, params: SamplingParams) -> mx.array:
    """Logits (R, V) of tokens that were used `counts` (R, V) times, made less likely."""
    used = counts > 0
    if params.repetition_penalty != 1:
        penalty = params.repetition_penalty
        logits = mx.where(used, mx.where(logits < 0, logits * penalty, logits / penalty), logits)
    return logits - used * params.presence_penalty - counts * params.frequency_penalty
