"""Filters on logits, and drawing a token from what they leave. Pure functions of arrays."""

from __future__ import annotations

import mlx.core as mx

from mlx_qwen3.generation.params import SamplingParams

# The vocabulary is looked through in blocks of this many logits: for top_k 20 of 151,936, both the
# maxima of blocks and the candidates fit one block of Metal's sort (2,048 values).
BLOCK = 96


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
        return mx.arange(logits.size, dtype=mx.uint32)
    maxima = logits[: count * BLOCK].reshape(count, BLOCK).max(axis=1)
    blocks = mx.argpartition(-maxima, kth=k - 1)[:k]
    ids = (blocks[:, None] * BLOCK + mx.arange(BLOCK, dtype=mx.uint32)).flatten()
    return mx.concatenate([ids, mx.arange(count * BLOCK, logits.size, dtype=mx.uint32)])


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
