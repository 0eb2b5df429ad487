"""From logits to the next token: Qwen's settings, and a sampler built of pure functions.

The order is transformers': penalties, temperature, top_k, top_p, min_p. With top_k first among the
filters, everything after it works on k candidates and never on the whole vocabulary.

A token is drawn by adding Gumbel noise to its candidates' logits and taking the greatest, which
follows the softmax exactly. The noise is a function of the seed, the token's place in the turn and
the candidate alone. So it does not matter who draws, or when: what a draft model draws for a place
is mostly what the model itself draws there, and text is the same with speculation and without.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol

import mlx.core as mx

from mlx_qwen3.errors import SamplingError

# Qwen's suggested limit for one answer, thinking included (https://huggingface.co/Qwen/Qwen3-14B).
MAX_TOKENS = 32768
KEYS_AT_ONCE = 256
# The vocabulary is looked through in blocks of this many logits.
BLOCK = 128


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen; the defaults are Qwen's for thinking mode.

    temperature: 0 takes the likeliest token. top_k: 0 considers all. top_p, min_p: 1 and 0 turn
    them off. presence_penalty, frequency_penalty: taken off the logit of a token once, or once per
    use, if it was used in this turn's output. repetition_penalty: divides (or multiplies, if
    negative) that logit, 1 is off. seed: the same seed and prompt give the same text; None draws one.

    Penalties see the whole output of the turn, as in serving engines, and not the prompt: loops are
    longer than any short window, and a name the user gave must stay sayable.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = MAX_TOKENS
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise SamplingError(f"{name} must be between {low:g} and {high:g}, not {value!r}")
        for name in ("top_k", "max_tokens"):
            if not isinstance(getattr(self, name), int):
                raise SamplingError(f"{name} must be a whole number, not {getattr(self, name)!r}")
        if self.top_p == 0:
            raise SamplingError("top_p must be above 0; use temperature 0 for the likeliest token")

    @classmethod
    def for_mode(cls, thinking: bool) -> SamplingParams:
        """Qwen's preset for thinking, or for answering directly."""
        return cls() if thinking else cls(temperature=0.7, top_p=0.8)

    def with_values(self, **values: Any) -> SamplingParams:
        """A copy with `values`. Raises SamplingError for an unknown name or a bad value."""
        known = [item.name for item in fields(self)]
        for name in values:
            if name not in known:
                raise SamplingError(f"there is no sampling parameter {name!r}; there are {', '.join(known)}")
        return replace(self, **values)

    @property
    def has_penalties(self) -> bool:
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1)


RANGES = {
    "temperature": (0, 10),
    "top_p": (0, 1),
    "top_k": (0, 10**9),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 10),
    "max_tokens": (1, 10**9),
}


class Constraint(Protocol):
    """Says which tokens may come next, for output that must have a form.

    Told of each token once it is surely part of the output: one that was sampled ahead and thrown away
    is never accepted.
    """

    def mask(self) -> mx.array | None:
        """True (V,) where a token may come next; None while every token may."""

    def accept(self, token: int) -> None:
        """`token` was taken."""

    def rollback(self, count: int) -> None:
        """Take the latest `count` accepted tokens back."""


class Sampler:
    """Chooses tokens for one turn. Lazy: nothing is evaluated, so decoding can run ahead.

    What it chooses depends on the logits, the seed and the tokens observed, and on nothing else: asked
    twice, it says the same. With a constraint, the mask of what may come is found on the CPU while the
    device is at the logits.
    """

    def __init__(self, params: SamplingParams, vocab_size: int, constraint: Constraint | None = None):
        self.params = params
        self.constraint = constraint
        self._keys = Keys(time.time_ns() if params.seed is None else params.seed)
        self._counts = mx.zeros((vocab_size,), mx.int32) if params.has_penalties else None
        self._observed = 0
        self._unaccepted: list[mx.array] = []  # observed, and not yet told to the constraint

    @cached_property
    def kind(self) -> SamplingParams | None:
        """Equal for samplers that differ in their seeds alone, and know nothing of what was said."""
        if self.constraint is not None or self._counts is not None:
            return None
        return replace(self.params, seed=None, max_tokens=MAX_TOKENS)

    def next_key(self) -> mx.array:
        """The random key (1, 2) of the next token."""
        return self._keys.at(self._observed)[None]

    def __call__(self, logits: mx.array) -> mx.array:
        """logits (V,) -> the id of the next token, a scalar array."""
        if self.constraint is not None:
            logits = self._constrain(logits[None], NOTHING, self.constraint)[0]
        if self._counts is not None:
            logits = penalize(logits, self._counts, self.params)
        if self.params.temperature == 0:
            return mx.argmax(logits)
        return draw(logits, self._keys.at(self._observed), self.params)

    def along(self, logits: mx.array, draft: mx.array) -> mx.array:
        """The tokens (k + 1,) that come after none, one, ... all of a draft (k,) of the next tokens.

        logits: (k + 1, V), the first of them for the next token. As far as it agrees with the draft,
        the result is what would have been chosen one by one; after the first disagreement it means nothing.
        """
        if self.constraint is not None:
            logits = self._constrain(logits, draft, self.constraint)
        if self._counts is not None:
            logits = penalize(logits, counts_along(self._counts, draft), self.params)
        return self._choose(logits, self._observed)

    def guess(self, logits: mx.array, draft: mx.array) -> mx.array:
        """The token (1,) that a draft model with `logits` (1, V) has come after a draft (k,)."""
        if self._counts is not None:
            logits = penalize(logits, counts_along(self._counts, draft)[-1:], self.params)
        return self._choose(logits, self._observed + draft.size)

    def observe(self, token: mx.array) -> None:
        """Count `token` as said in this turn."""
        self._observed += 1
        if self._counts is not None:
            self._counts = self._counts.at[token].add(1)
        if self.constraint is not None:
            self._unaccepted.append(token)

    def _choose(self, logits: mx.array, place: int) -> mx.array:
        """The tokens (R,) of the places from `place` on, from their logits (R, V)."""
        if self.params.temperature == 0:
            return mx.argmax(logits, axis=-1)
        if logits.shape[0] == 1:
            return draw(logits[0], self._keys.at(place), self.params)[None]
        keys = mx.stack([self._keys.at(place + row) for row in range(logits.shape[0])])
        tokens: mx.array = mx.vmap(lambda row, key: draw(row, key, self.params))(logits, keys)
        return tokens

    def _constrain(self, logits: mx.array, draft: mx.array, constraint: Constraint) -> mx.array:
        mx.async_eval(logits)  # type: ignore[no-untyped-call]
        for token in self._unaccepted:
            constraint.accept(int(token.item()))  # type: ignore[arg-type]  # item() is typed complex too
        self._unaccepted.clear()
        masks = masks_along(constraint, draft.tolist())  # type: ignore[arg-type]
        if all(mask is None for mask in masks):
            return logits
        free = mx.ones(logits.shape[-1:], mx.bool_)
        rows = [free if mask is None else mask for mask in masks]
        rows += [free] * (logits.shape[0] - len(rows))
        return mx.where(mx.stack(rows), logits, -mx.inf)


def choose_each(samplers: Sequence[Sampler], logits: mx.array) -> list[mx.array]:
    """What each sampler chooses by its row of logits (B, V). Those of the same settings choose together."""
    groups: dict[object, list[int]] = {}
    for number, sampler in enumerate(samplers):
        groups.setdefault(sampler.kind or number, []).append(number)
    chosen: dict[int, mx.array] = {}
    for kind, numbers in groups.items():
        own = logits if len(numbers) == len(samplers) else logits[mx.array(numbers)]
        if not isinstance(kind, SamplingParams):
            tokens = [samplers[numbers[0]](own[0])]
        elif kind.temperature == 0:
            tokens = list(mx.argmax(own, axis=-1))
        else:
            keys = mx.concatenate([samplers[number].next_key() for number in numbers])
            tokens = list(mx.vmap(lambda row, key, kind=kind: draw(row, key, kind))(own, keys))
        chosen.update(zip(numbers, tokens, strict=True))
    return [chosen[number] for number in range(len(samplers))]


NOTHING = mx.array([], mx.uint32)  # data, not an operation: those belong to the thread that made them
"""No draft."""


def masks_along(constraint: Constraint, draft: Sequence[int]) -> list[mx.array | None]:
    """The masks after none, one, ... of the tokens of `draft`, up to the first that may not come."""
    masks, accepted = [constraint.mask()], 0
    for token in draft:
        if (mask := masks[-1]) is not None and not mask[token].item():
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


class Keys:
    """A random key for each place of a turn, the same ones for the same seed."""

    def __init__(self, seed: int):
        self._state = mx.random.key(seed & 0xFFFF_FFFF_FFFF_FFFF)
        self._keys: list[mx.array] = []

    def at(self, place: int) -> mx.array:
        """The key (2,) of this place."""
        while len(self._keys) <= place:
            self._state, *keys = mx.random.split(self._state, KEYS_AT_ONCE + 1)
            self._keys += keys
        return self._keys[place]


def draw(logits: mx.array, key: mx.array, params: SamplingParams) -> mx.array:
    """One token, a scalar array, from the distribution that `filter_logits` leaves of logits (V,)."""
    ids, candidates = filter_logits(logits, params)
    if ids is None:
        return mx.argmax(candidates + mx.random.gumbel(candidates.shape, key=key))
    return ids[mx.argmax(candidates + noise(ids, key))]


def noise(ids: mx.array, key: mx.array) -> mx.array:
    """Gumbel noise (K,) for the tokens `ids` (K,): each has its own, whichever others there are."""
    own = mx.stack([mx.broadcast_to(key[0], ids.shape), key[1] + ids.astype(mx.uint32)], axis=-1)
    values: mx.array = mx.vmap(lambda one: mx.random.gumbel(key=one))(own)
    return values


def filter_logits(logits: mx.array, params: SamplingParams) -> tuple[mx.array | None, mx.array]:
    """The candidates that temperature, top_k, top_p and min_p leave of logits (V,).

    Returns their ids (K,), likeliest first, and their logits (K,), -inf for those filtered out;
    ids is None where every token stays, in the order of the vocabulary.
    """
    if params.top_k == 0 and params.top_p == 1:
        return None, min_p(logits.astype(mx.float32) / params.temperature, params.min_p)
    ids = likeliest(logits, params.top_k)
    candidates = logits[ids].astype(mx.float32) / params.temperature  # which does not change their order
    return ids, min_p(top_p(candidates, params.top_p), params.min_p)


def likeliest(logits: mx.array, k: int) -> mx.array:
    """The ids of the k largest logits, likeliest first; of all of them for k = 0."""
    if not 0 < k < logits.size:
        return mx.argsort(-logits)
    among = _best_blocks(logits, k)
    best = mx.argpartition(-logits[among], kth=k - 1)[:k]
    ids = among[best]
    return ids[mx.argsort(-logits[ids])]


def _best_blocks(logits: mx.array, k: int) -> mx.array:
    """Ids among which are k of the largest logits: partitioning all 151,936 would take five times as long.

    They are the k blocks with the greatest maxima, and the rest that fills no block. No logit
    elsewhere exceeds any of those k maxima, so, ties aside, none is among the k largest.
    """
    count = logits.size // BLOCK
    if count <= k:
        return mx.arange(logits.size)
    maxima = logits[: count * BLOCK].reshape(count, BLOCK).max(axis=1)
    blocks = mx.argpartition(-maxima, kth=k - 1)[:k]
    ids = (blocks[:, None] * BLOCK + mx.arange(BLOCK)).flatten()
    return mx.concatenate([ids, mx.arange(count * BLOCK, logits.size)])


def top_p(sorted_logits: mx.array, threshold: float) -> mx.array:
    """Keep the fewest of the likeliest tokens whose probability reaches `threshold`."""
    if threshold >= 1:
        return sorted_logits
    probabilities = mx.softmax(sorted_logits, precise=True)
    before = mx.cumsum(probabilities) - probabilities  # 0 for the likeliest, so one always stays
    return mx.where(before < threshold, sorted_logits, -mx.inf)


def min_p(logits: mx.array, ratio: float) -> mx.array:
    """Keep tokens at least `ratio` times as likely as the likeliest."""
    if ratio <= 0:
        return logits
    # p / p_max = exp(logit - max), so no softmax is needed.
    return mx.where(mx.exp(logits - logits.max()) >= ratio, logits, -mx.inf)


def penalize(logits: mx.array, counts: mx.array, params: SamplingParams) -> mx.array:
    """Make tokens that were used `counts` (V,) times less likely."""
    used = counts > 0
    if params.repetition_penalty != 1:
        penalty = params.repetition_penalty
        logits = mx.where(used, mx.where(logits < 0, logits * penalty, logits / penalty), logits)
    return logits - used * params.presence_penalty - counts * params.frequency_penalty
