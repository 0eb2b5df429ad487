"""softmax(q k^T) v over plain or quantized rows, in memory that does not grow with the context.

Four ways, chosen by what the rows are, how many queries look at them, and the device:

1. Few scores: plain rows go to MLX's `scaled_dot_product_attention`; quantized ones, where few
   queries look (decoding), are multiplied as they are stored. Nothing is unpacked. Few queries to
   many plain rows on the CPU go by small products, which BLAS does without rearranging the rows.
2. A GPU, plain rows: the same kernel, whatever the size. It keeps no scores.
3. A GPU, quantized rows, many queries: the same kernel, head by head of the keys. One head's rows
   are unpacked at a time: 512 bytes a token of context in bf16, a 320th of what a bf16 cache of the
   14B model holds. Merging tiles would need each tile's normaliser, which the kernel does not
   return, and computing tiles of scores outside of it would move them through memory six times.
4. The CPU has no such kernel; MLX would build all scores. Tiles of them are computed one after the
   other with a running softmax (https://arxiv.org/abs/1805.02867), quantized rows unpacked a tile
   at a time. As fast as building all, and memory is a tile's (measured: docs/memory.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import mlx.core as mx

from mlx_qwen3.backend.device import computed, is_cpu
from mlx_qwen3.backend.exp import exp
from mlx_qwen3.cache.rows import QuantizedRows, Rows, dequantize, layout_of, length_of, take

Mask = mx.array | str | None  # "causal", an additive or boolean (.., L, S) array, or nothing to hide

# Scores computed at once: 4 MiB of fp32.
TILE_SCORES = 2**20
# Up to this many, nothing is gained by tiles on the CPU.
FEW_SCORES = 2**14
# Queries of a tile, and the least keys of one.
TILE_QUERIES, TILE_KEYS = 256, 256
# Up to this many queries per key head, multiplying rows as stored beats unpacking them.
FEW_QUERIES = 16
# On the CPU, few queries are multiplied with this many rows at once.
SMALL_KEYS = 1024
# Head sizes that the GPU kernel for many queries knows; others would build all scores.
KERNEL_HEAD_DIMS = (64, 80, 128)


def attend(queries: mx.array, keys: Rows, values: Rows, scale: float, mask: Mask = None) -> mx.array:
    """Attention of queries (B, H, L, D) to keys and values (B, H_kv, S, D) -> (B, H, L, D).

    H is a multiple of H_kv: neighbouring query heads share a key head, and keys are not repeated.
    Rows may be quantized: QuantizedRows, or any (packed, scales, biases). `mask` is (..., L, S),
    without an axis of heads; "causal" lines the last query up with the last key.
    """
    B, H, L, D = queries.shape
    S = length_of(keys)
    on_cpu = is_cpu()
    on_gpu = not on_cpu and D in KERNEL_HEAD_DIMS
    if isinstance(keys, mx.array):
        assert isinstance(values, mx.array)
        is_long = S >= 2 * SMALL_KEYS and H // keys.shape[1] * L <= FEW_QUERIES
        if is_long and not on_gpu and keys.dtype == mx.float32:
            return _by_small_products(queries, keys, values, scale, mask)
        # Without that kernel a GPU builds all scores; those of a prompt's first rows are as its chunk is.
        few = FEW_SCORES if on_cpu else TILE_SCORES
        if on_gpu or few >= B * H * L * S or (L == S and not on_cpu):
            return _kernel(queries, keys, values, scale, mask)
    else:
        keys, values = QuantizedRows(*keys), QuantizedRows(*values)
        if H // keys.packed.shape[1] * L <= FEW_QUERIES:
            return _as_stored(queries, keys, values, scale, mask)
        if on_gpu:
            return _head_by_head(queries, keys, values, scale, mask)
    return _tiled(queries, keys, values, scale, mask)


def _kernel(queries: mx.array, keys: Rows, values: Rows, scale: float, mask: Mask) -> mx.array:
    if isinstance(mask, mx.array) and mask.ndim == 3:
        mask = mask[:, None]
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)  # type: ignore[arg-type]


def _grouped(queries: mx.array, key_heads: int) -> mx.array:
    """(B, H, L, D) -> (B, H_kv, G, L, D): the queries of each key head together."""
    B, H, L, D = queries.shape
    return queries.reshape(B, key_heads, H // key_heads, L, D)


def _few(
    queries: mx.array,
    sizes: tuple[int, int],
    scale: float,
    mask: Mask,
    score: Callable[[mx.array], mx.array],
    mix: Callable[[mx.array], mx.array],
) -> mx.array:
    """All scores of few queries at once, a row per query: each key and value is read once.

    sizes: H_kv and S. score: queries (B, H_kv, G * L, D) -> (.., S); mix: weights (.., S) -> (.., D).
    """
    B, _, L, D = queries.shape
    heads, S = sizes
    scores = score((_grouped(queries, heads) * scale).reshape(B, heads, -1, D))
    scores = _hide(scores.reshape(B, heads, -1, L, S), mask, Span(0, L), Span(0, S), S - L)
    weights = mx.softmax(scores, axis=-1, precise=True).reshape(B, heads, -1, S)
    return mix(weights).reshape(queries.shape)


def _as_stored(
    queries: mx.array, keys: QuantizedRows, values: QuantizedRows, scale: float, mask: Mask
) -> mx.array:
    """Few queries to quantized rows, which are not unpacked."""
    group_size, bits = layout_of(keys, queries.shape[-1])
    product = partial(mx.quantized_matmul, group_size=group_size, bits=bits)
    return _few(
        queries,
        (keys.packed.shape[1], length_of(keys)),
        scale,
        mask,
        score=lambda grouped: product(grouped, *keys, transpose=True),
        mix=lambda weights: product(weights, *values, transpose=False),
    )


def _by_small_products(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask
) -> mx.array:
    """Few queries to many plain rows on the CPU, some rows at a time."""
    spans = _spans(keys.shape[2], SMALL_KEYS)
    tiles = [(keys[:, :, start:stop].swapaxes(-1, -2), values[:, :, start:stop]) for start, stop in spans]
    return _few(
        queries,
        (keys.shape[1], keys.shape[2]),
        scale,
        mask,
        score=lambda grouped: mx.concatenate([grouped @ tile for tile, _ in tiles], axis=-1),
        mix=lambda weights: reduce(
            mx.add, (weights[..., slice(*span)] @ tile for span, (_, tile) in zip(spans, tiles, strict=True))
        ),
    )


def _head_by_head(
    queries: mx.array, keys: QuantizedRows, values: QuantizedRows, scale: float, mask: Mask
) -> mx.array:
    """Many queries on a GPU: one key head's rows are unpacked at a time."""
    layout = layout_of(keys, queries.shape[-1])
    heads = keys.packed.shape[1]
    group = queries.shape[1] // heads
    outputs: list[mx.array] = []
    for head in range(heads):
        rows = [[array[:, head : head + 1] for array in stored] for stored in (keys, values)]
        if outputs:  # only after the last head is done with, lest all be unpacked at once
            rows = [mx.depends(arrays, outputs[-1:]) for arrays in rows]
        plain = [dequantize(arrays, layout).astype(queries.dtype) for arrays in rows]
        own = queries[:, head * group : (head + 1) * group]
        outputs.append(_kernel(own, plain[0], plain[1], scale, mask))
    return mx.concatenate(outputs, axis=1)


class Span(NamedTuple):
    """Rows `start` up to `stop`."""

    start: int
    stop: int


def _spans(length: int, size: int) -> list[Span]:
    return [Span(start, min(start + size, length)) for start in range(0, length, size)]


def _tiled(queries: mx.array, keys: Rows, values: Rows, scale: float, mask: Mask) -> mx.array:
    """Tile after tile of scores, those of one block of queries before the next."""
    B, H, L, _ = queries.shape
    block = min(L, TILE_QUERIES)
    size = max(TILE_KEYS, TILE_SCORES // (B * H * block))
    scaled = _grouped(queries * scale, keys.shape[1] if isinstance(keys, mx.array) else keys[0].shape[1])
    blocks = [
        _block(scaled[..., rows.start : rows.stop, :], keys, values, mask, rows, (L, size))
        for rows in _spans(L, block)
    ]
    return mx.concatenate(blocks, axis=3).reshape(queries.shape).astype(queries.dtype)


def _block(
    queries: mx.array, keys: Rows, values: Rows, mask: Mask, rows: Span, sizes: tuple[int, int]
) -> mx.array:
    """Attention of queries (B, H_kv, G, block, D), rows `rows` of all L, to every key they see."""
    B, heads, G, block, D = queries.shape
    length, size = sizes
    history = length_of(keys) - length
    end = history + rows.stop if isinstance(mask, str) else length_of(keys)
    flat = queries.reshape(B, heads, G * block, D)
    running = Running.none(flat)
    for span in _spans(end, size):
        tile_keys, tile_values = _plain(keys, span, queries), _plain(values, span, queries)
        scores = (flat @ tile_keys.swapaxes(-1, -2)).reshape(B, heads, G, block, -1)
        scores = _hide(scores, mask, rows, span, history).reshape(B, heads, G * block, -1)
        running = running.add(scores.astype(mx.float32), tile_values)
        # MLX would take memory for many tiles ahead of computing the first.
        computed(*running)
    return running.result().reshape(B, heads, G, block, D)


def _plain(rows: Rows, span: Span, like: mx.array) -> mx.array:
    tile = take(rows, *span)
    plain = tile if isinstance(tile, mx.array) else dequantize(tile, layout_of(tile, like.shape[-1]))
    return plain.astype(like.dtype)


class Running(NamedTuple):
    """A softmax-weighted sum over the tiles seen: its greatest score, its weights' sum, itself."""

    greatest: mx.array  # (B, H_kv, rows, 1)
    total: mx.array
    output: mx.array  # (B, H_kv, rows, D), of weights exp(score - greatest)

    @classmethod
    def none(cls, like: mx.array) -> Running:
        zero = mx.zeros((*like.shape[:-1], 1))
        return cls(mx.full(zero.shape, LOWEST), zero, mx.zeros(like.shape))

    def add(self, scores: mx.array, values: mx.array) -> Running:
        """With one more tile: scores (B, H_kv, rows, T) in fp32, values (B, H_kv, T, D)."""
        greatest = mx.maximum(self.greatest, scores.max(axis=-1, keepdims=True))
        weights = exp(scores - greatest)
        fade = mx.exp(self.greatest - greatest)
        return Running(
            greatest,
            self.total * fade + weights.sum(axis=-1, keepdims=True),
            self.output * fade + weights.astype(values.dtype) @ values,
        )

    def result(self) -> mx.array:
        return self.output / self.total


# Hidden scores; finite, so that a tile in which a row sees nothing gives no 0/0. What such a tile
# adds is faded out by the first tile in which the row sees something.
LOWEST = -1e30


def _hide(scores: mx.array, mask: Mask, rows: Span, span: Span, history: int) -> mx.array:
    """`scores` (B, H_kv, G, rows, span) with what `mask` hides from these rows at a low value."""
    if mask is None:
        return scores
    if isinstance(mask, str):
        if span.stop <= history + rows.start + 1:
            return scores
        tile = mx.arange(history + rows.start, history + rows.stop)[:, None] >= mx.arange(*span)
    else:
        tile = mask[..., rows.start : rows.stop, span.start : span.stop]
        # An axis of batch or heads, where there is one, comes before that of key heads.
        tile = tile if tile.ndim < 3 else tile.reshape(tile.shape[0], 1, 1, *tile.shape[-2:])
    if tile.dtype == mx.bool_:
        return mx.where(tile, scores, mx.array(max(LOWEST, mx.finfo(scores.dtype).min), scores.dtype))
    return scores + tile
