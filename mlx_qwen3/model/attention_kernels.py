"""softmax(q k^T) v over plain or quantized rows, in memory that does not grow with the context.

There are four ways, chosen by how the rows are stored, how many queries read them, and the device:

1. Few scores: plain rows go to MLX's `scaled_dot_product_attention`. Few queries (decoding) multiply
   quantized rows as they are stored; nothing is unpacked. On the CPU few queries multiply many plain
   rows in small products, for which BLAS does not rearrange the rows.
2. A GPU, plain rows: MLX's fused kernels. On Metal they store no scores for head sizes of 64, 80 and
   128, except where 3 to 8 queries of models with more than 4 query heads a key head follow one
   another. On CUDA scores are stored in fp32, and where a mask is an array.
3. A GPU, quantized rows, many queries: the same kernels, one key head at a time. The rows of one head
   are unpacked at a time: 512 bytes per token of context in bf16, 1/320 of a bf16 cache of the 14B
   model. A GPU frees them only when its command buffer is done, so for long contexts each layer is
   waited for. Merging tiles would need the normaliser of each tile, which the kernel does not return;
   computing tiles of scores outside of it would move them through memory six times.
4. The CPU has no such kernel: MLX would store all scores. Instead tiles of scores are computed one by
   one with a running softmax (https://arxiv.org/abs/1805.02867), and quantized rows are unpacked one
   tile at a time. This is as fast as storing all scores and takes the memory of one tile
   (measured: docs/memory.md).
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import mlx.core as mx

from mlx_qwen3.backend.device import eval_unless_traced, is_cpu, is_cuda, is_metal
from mlx_qwen3.backend.exp import exp
from mlx_qwen3.backend.matmul import multiply
from mlx_qwen3.cache.rows import QuantizedRows, Rows, dequantize, layout_of, length_of, take

Mask = mx.array | str | None
"""What queries must not see: "causal", an additive or boolean array (..., L, S), or None for nothing."""

# Scores of one tile: 4 MiB of fp32.
TILE_SCORES = 2**20
# Up to this many scores, tiles gain nothing on the CPU.
FEW_SCORES = 2**14
# Queries of a tile, and the fewest keys of a tile.
TILE_QUERIES, TILE_KEYS = 256, 256
# Up to this many queries per key head, multiplying rows as stored beats unpacking them. On a GPU unpacking
# starts 25 kernels a layer and moves each row three times, so a draft is better off without.
FEW_QUERIES, FEW_QUERIES_GPU = 16, 64
# Metal's product with values as stored splits many rows among threadgroups for up to this many queries; for
# more, 32 threadgroups go through all rows (docs/metal.md, 5).
QUERIES_OF_SPLIT_PRODUCT = 3
# From this many rows on, a GPU's prompt over quantized rows waits for each layer, or the unpacked rows of
# several layers are held at once.
WAIT_FROM_ROWS = 16384
# On the CPU, few queries multiply this many rows at a time.
SMALL_KEYS = 1024
# Head sizes that the GPU kernel for many queries supports; for others it stores all scores.
KERNEL_HEAD_DIMS = (64, 80, 128)


def attend(queries: mx.array, keys: Rows, values: Rows, scale: float, mask: Mask = None) -> mx.array:
    """Attention of queries (B, H, L, D) to keys and values (B, H_kv, S, D) -> (B, H, L, D).

    H is a multiple of H_kv: neighbouring query heads share a key head, and keys are not repeated.
    Rows may be quantized: QuantizedRows, or any (packed, scales, biases). `mask` is (..., L, S),
    without an axis of heads; "causal" aligns the last query with the last key.
    """
    B, H, L, D = queries.shape
    S = length_of(keys)
    on_cpu = is_cpu()
    on_gpu = not on_cpu and D in KERNEL_HEAD_DIMS
    if isinstance(keys, mx.array):
        assert isinstance(values, mx.array)
        is_long = S >= 2 * SMALL_KEYS and H // keys.shape[1] * L <= FEW_QUERIES
        if is_long and not on_gpu and keys.dtype == mx.float32:
            return _in_small_products(queries, keys, values, scale, mask)
        # For other head sizes a GPU stores all scores. Of the first chunk of a prompt (L == S) they are
        # no more than the chunk size allows.
        few = FEW_SCORES if on_cpu else TILE_SCORES
        if on_gpu or few >= B * H * L * S or (L == S and not on_cpu):
            return _kernel(queries, keys, values, scale, mask)
    else:
        keys, values = QuantizedRows(*keys), QuantizedRows(*values)
        # CUDA's products want packed rows without gaps, and a buffer of several heads has spare rows.
        few_queries = FEW_QUERIES if on_cpu else 0 if is_cuda() else FEW_QUERIES_GPU
        if H // keys.packed.shape[1] * L <= few_queries:
            return _as_stored(queries, keys, values, scale, mask)
        if on_gpu:
            return _head_by_head(queries, keys, values, scale, mask)
    return _tiled(queries, keys, values, scale, mask)


def _kernel(queries: mx.array, keys: Rows, values: Rows, scale: float, mask: Mask) -> mx.array:
    if isinstance(mask, mx.array) and mask.ndim == 3:
        mask = mask[:, None]
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)  # type: ignore[arg-type]


def _as_stored(
    queries: mx.array, keys: QuantizedRows, values: QuantizedRows, scale: float, mask: Mask
) -> mx.array:
    """Few queries, quantized rows: multiplies the rows without unpacking them."""
    B, _, L, D = queries.shape
    group_size, bits = layout_of(keys, D)
    # The G query heads of a key head are rows of one product, which reads each key and value once.
    flat = (queries * scale).reshape(B, keys.packed.shape[1], -1, D)  # (B, H_kv, G * L, D)
    scores = mx.quantized_matmul(flat, *keys, transpose=True, group_size=group_size, bits=bits)
    weights = _softmax(scores, mask, L)  # (B, H_kv, G * L, S)
    step = QUERIES_OF_SPLIT_PRODUCT if is_metal() else weights.shape[2]
    outputs = [
        mx.quantized_matmul(part, *values, transpose=False, group_size=group_size, bits=bits)
        for part in (weights[:, :, i : i + step] for i in range(0, weights.shape[2], step))
    ]
    output = outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=2)
    return output.reshape(queries.shape)


def _in_small_products(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask
) -> mx.array:
    """Few queries, many plain rows on the CPU: multiplies `SMALL_KEYS` rows at a time."""
    B, _, L, D = queries.shape
    spans = _spans(keys.shape[2], SMALL_KEYS)
    flat = (queries * scale).reshape(B, keys.shape[1], -1, D)  # (B, H_kv, G * L, D)
    scores = [flat @ keys[:, :, start:stop].swapaxes(-1, -2) for start, stop in spans]
    weights = _softmax(mx.concatenate(scores, axis=-1), mask, L)  # (B, H_kv, G * L, S)
    outputs = [weights[..., start:stop] @ values[:, :, start:stop] for start, stop in spans]
    return reduce(mx.add, outputs).reshape(queries.shape)


def _softmax(scores: mx.array, mask: Mask, length: int) -> mx.array:
    """All scores of few queries (B, H_kv, G * L, S) -> their weights, of the same shape. length: L."""
    B, heads, _, S = scores.shape
    scores = scores.reshape(B, heads, -1, length, S)
    scores = _hide(scores, mask, Span(0, length), Span(0, S), S - length)
    return mx.softmax(scores, axis=-1, precise=True).reshape(B, heads, -1, S)


def _head_by_head(
    queries: mx.array, keys: QuantizedRows, values: QuantizedRows, scale: float, mask: Mask
) -> mx.array:
    """Many queries, quantized rows on a GPU: unpacks the rows of one key head at a time."""
    layout = layout_of(keys, queries.shape[-1])
    heads = keys.packed.shape[1]
    group = queries.shape[1] // heads
    outputs: list[mx.array] = []
    for head in range(heads):
        rows = [[array[:, head : head + 1] for array in stored] for stored in (keys, values)]
        if outputs:  # wait for the head before, or MLX unpacks all heads at once
            rows = [mx.depends(arrays, outputs[-1:]) for arrays in rows]
        head_keys, head_values = (dequantize(arrays, layout).astype(queries.dtype) for arrays in rows)
        head_queries = queries[:, head * group : (head + 1) * group]  # (B, G, L, D)
        outputs.append(_kernel(head_queries, head_keys, head_values, scale, mask))
    output = mx.concatenate(outputs, axis=1)
    if length_of(keys) >= WAIT_FROM_ROWS:
        eval_unless_traced(output)
    return output


class Span(NamedTuple):
    """A range of rows."""

    start: int
    stop: int


def _spans(length: int, size: int) -> list[Span]:
    return [Span(start, min(start + size, length)) for start in range(0, length, size)]


def _tiled(queries: mx.array, keys: Rows, values: Rows, scale: float, mask: Mask) -> mx.array:
    """Many queries on the CPU: one block of queries after another, and for each, tile after tile of keys."""
    B, H, L, D = queries.shape
    heads = (keys if isinstance(keys, mx.array) else keys[0]).shape[1]
    block = min(L, TILE_QUERIES)
    tile = max(TILE_KEYS, TILE_SCORES // (B * H * block))
    grouped = (queries * scale).reshape(B, heads, H // heads, L, D)  # (B, H_kv, G, L, D)
    outputs = [
        _attend_block(grouped[..., rows.start : rows.stop, :], keys, values, mask, rows, L, tile)
        for rows in _spans(L, block)
    ]
    return mx.concatenate(outputs, axis=3).reshape(queries.shape).astype(queries.dtype)


def _attend_block(
    queries: mx.array, keys: Rows, values: Rows, mask: Mask, rows: Span, length: int, tile: int
) -> mx.array:
    """Attention of queries (B, H_kv, G, block, D), which are `rows` of all L, to every key they see.

    length: L. tile: keys of a tile.
    """
    B, heads, G, block, D = queries.shape
    history = length_of(keys) - length
    end = history + rows.stop if isinstance(mask, str) else length_of(keys)
    flat = queries.reshape(B, heads, G * block, D)
    softmax = RunningSoftmax.empty(flat)
    for span in _spans(end, tile):
        tile_keys, tile_values = _plain(keys, span, queries), _plain(values, span, queries)
        scores = multiply(flat, tile_keys.swapaxes(-1, -2)).reshape(B, heads, G, block, -1)
        scores = _hide(scores, mask, rows, span, history).reshape(B, heads, G * block, -1)
        softmax = softmax.add(scores.astype(mx.float32), tile_values)
        # Otherwise MLX allocates many tiles before it computes the first.
        eval_unless_traced(*softmax)
    return softmax.result().reshape(B, heads, G, block, D)


def _plain(rows: Rows, span: Span, like: mx.array) -> mx.array:
    """The rows of `span`, unpacked, in the dtype of `like`."""
    part = take(rows, *span)
    plain = part if isinstance(part, mx.array) else dequantize(part, layout_of(part, like.shape[-1]))
    return plain.astype(like.dtype)


class RunningSoftmax(NamedTuple):
    """A softmax-weighted sum of values over the tiles so far. Weights are exp(score - greatest)."""

    greatest: mx.array  # (B, H_kv, rows, 1), the greatest score
    total: mx.array  # (B, H_kv, rows, 1), the sum of weights
    output: mx.array  # (B, H_kv, rows, D), the weighted sum of values

    @classmethod
    def empty(cls, like: mx.array) -> RunningSoftmax:
        zero = mx.zeros((*like.shape[:-1], 1))
        return cls(mx.full(zero.shape, LOWEST), zero, mx.zeros(like.shape))

    def add(self, scores: mx.array, values: mx.array) -> RunningSoftmax:
        """Include a tile: scores (B, H_kv, rows, T) in fp32, values (B, H_kv, T, D)."""
        greatest = mx.maximum(self.greatest, scores.max(axis=-1, keepdims=True))
        weights = exp(scores - greatest)
        decay = mx.exp(self.greatest - greatest)
        return RunningSoftmax(
            greatest,
            self.total * decay + weights.sum(axis=-1, keepdims=True),
            self.output * decay + multiply(weights.astype(values.dtype), values),
        )

    def result(self) -> mx.array:
        return self.output / self.total


# The value of hidden scores. It is finite, so that a tile that is hidden from a row gives no 0/0. What
# such a tile adds decays to zero with the first tile that the row sees.
LOWEST = -1e30


def _hide(scores: mx.array, mask: Mask, rows: Span, span: Span, history: int) -> mx.array:
    """Apply `mask` to the scores (B, H_kv, G, rows, span) of queries `rows` and keys `span`.

    history: keys before the first query.
    """
    if mask is None:
        return scores
    if isinstance(mask, str):
        if span.stop <= history + rows.start + 1:
            return scores
        tile = mx.arange(history + rows.start, history + rows.stop)[:, None] >= mx.arange(*span)
    else:
        tile = mask[..., rows.start : rows.stop, span.start : span.stop]
        if tile.ndim >= 3:  # (B, rows, span): add the axes of heads
            tile = tile.reshape(tile.shape[0], 1, 1, *tile.shape[-2:])
    if tile.dtype == mx.bool_:
        lowest = max(LOWEST, mx.finfo(scores.dtype).min)  # fp16 cannot hold LOWEST
        return mx.where(tile, scores, mx.array(lowest, scores.dtype))
    return scores + tile
