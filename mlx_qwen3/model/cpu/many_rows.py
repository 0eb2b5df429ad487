"""A pass over any number of tokens, with any KV cache: kernels between products by numpy's BLAS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.native.layout import LANES, PLAIN, panels_bytes
from mlx_qwen3.backend.native.program import Program, Stored
from mlx_qwen3.backend.stored_matrix import Part, StoredMatrix
from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.cache.rows import Rows
from mlx_qwen3.model.attention import CacheMask, attend_cached
from mlx_qwen3.model.cpu.weights import Layer, Weights

# Scores that are in memory at a time: 8 MiB.
TILE_SCORES = 2**21
FLOAT = 4


class Span:
    """The rows of a pass that belong to one sequence, and its cache in each layer."""

    def __init__(self, start: int, stop: int, caches: Sequence[Cache], mask: CacheMask):
        self.start, self.stop, self.caches, self.mask = start, stop, caches, mask
        self.length = stop - start


class ManyRows:
    """Computes passes with a model's weights."""

    def __init__(self, weights: Weights):
        self._weights = weights

    def hidden(self, ids: Any, rotations: Any, spans: list[Span]) -> Any:
        """ids (T,), rotations (T, D) -> normalised hidden states (T, hidden). The caches are extended."""
        weights, eps = self._weights, self._weights.shape.eps
        x = np.empty((len(ids), weights.shape.hidden), np.float32)
        weights.embedding.unpack(x, ids)
        for number, layer in enumerate(weights.layers):
            x += self._attention(layer, number, _normed(x, layer.input_norm, eps), rotations, spans)
            normed = _normed(x, layer.mlp_norm, eps)
            x += _mlp(layer, normed) if layer.experts is None else _experts(layer, normed)
        return _normed(x, weights.norm, eps)

    def logits(self, hidden: Any) -> Any:
        """Hidden states (rows, hidden) -> logits (rows, V)."""
        return product(self._weights.head, hidden)

    def _attention(self, layer: Layer, number: int, x: Any, rotations: Any, spans: list[Span]) -> Any:
        q, k, v = (product(matrix, x) for matrix in (layer.q, layer.k, layer.v))
        shape = self._weights.shape
        attended = np.empty((len(x), shape.heads, shape.head_dim), np.float32)
        for span in spans:
            rows = slice(span.start, span.stop)
            own_q = self._rotated(q[rows], layer.q_norm, shape.heads, rotations[rows])
            own_k = self._rotated(k[rows], layer.k_norm, shape.key_heads, rotations[rows])
            own_v = v[rows].reshape(span.length, shape.key_heads, -1).transpose(1, 0, 2)
            attended[rows] = self._attend(span, span.caches[number], own_q, own_k, own_v)
        return product(layer.o, attended.reshape(len(x), -1))

    def _rotated(self, x: Any, norm: int, heads: int, rotations: Any) -> Any:
        """x (L, heads * D) -> normalised and rotated, (heads, L, D)."""
        shape, length = self._weights.shape, len(x)
        result = np.empty((heads, length, shape.head_dim), np.float32)
        program = Program()
        steps = FLOAT * shape.head_dim, FLOAT * length * shape.head_dim
        size = (length, heads, shape.head_dim)
        places = x.ctypes.data, norm, size, rotations.ctypes.data, result.ctypes.data
        program.rotate(*places, steps, shape.eps)
        program.run()
        return result

    def _attend(self, span: Span, cache: Cache, q: Any, k: Any, v: Any) -> Any:
        """q (H, L, D), k and v (H_kv, L, D) -> (L, H, D)."""
        keys, values = (mx.array(np.ascontiguousarray(array))[None] for array in (k, v))
        if type(cache) is KVCache:
            rows = append(cache, keys, values)
            if all(isinstance(array, mx.array) and array.dtype == mx.float32 for array in rows):
                mx.eval(rows)
                return self._causal(q, np.asarray(rows[0])[0], np.asarray(rows[1])[0])
            raise TypeError("a full cache of a CPU holds fp32")
        output = attend_cached(mx.array(q)[None], keys, values, cache, self._weights.shape.scale, span.mask)
        return np.asarray(output.astype(mx.float32))[0].transpose(1, 0, 2)

    def _causal(self, q: Any, keys: Any, values: Any) -> Any:
        """Causal attention of the last L rows to all S: q (H, L, D), keys (H_kv, S, D) -> (L, H, D)."""
        shape = self._weights.shape
        H, L, D = q.shape
        S = keys.shape[1]
        result = np.empty((L, H, D), np.float32)
        block = max(1, min(L, TILE_SCORES // (H * S)))
        grouped = q.reshape(shape.key_heads, shape.group, L, D)
        for start in range(0, L, block):
            stop = min(start + block, L)
            end = S - L + stop  # the rows that the last query of the block sees
            queries = np.ascontiguousarray(grouped[:, :, start:stop]).reshape(shape.key_heads, -1, D)
            mixed = _attend_block(queries, keys[:, :end], values[:, :end], stop - start, shape.scale)
            result[start:stop] = mixed.reshape(H, stop - start, D).transpose(1, 0, 2)
        return result


def _attend_block(queries: Any, keys: Any, values: Any, block: int, scale: float) -> Any:
    """queries (H_kv, G * block, D), keys and values (H_kv, S, D) -> (H_kv, G * block, D).

    The last query of each `block` sees all keys, the one before it all but one.
    """
    heads, rows, D = queries.shape
    S = keys.shape[1]
    stride = -(-S // LANES) * LANES
    scores = np.empty((heads, rows, stride), np.float32)
    columns = np.zeros((heads, D, stride), np.float32)
    mixed = np.empty_like(queries)
    panels = np.empty(panels_bytes(rows, max(D, stride)), np.uint8).ctypes
    program = Program()
    for head in range(heads):
        x, y = queries[head].ctypes.data, scores[head].ctypes.data
        matrix = Stored(PLAIN, keys[head].ctypes.data, 0, 0, D, S)
        program.matmul(matrix, x, y, rows, FLOAT * stride, panels.data)
        program.transpose(values[head].ctypes.data, S, D, columns[head].ctypes.data, FLOAT * stride)
    program.softmax(scores.ctypes.data, heads * rows, stride, block, S - block + 1, scale)
    for head in range(heads):
        x, y = scores[head].ctypes.data, mixed[head].ctypes.data
        matrix = Stored(PLAIN, columns[head].ctypes.data, 0, 0, stride, D)
        program.matmul(matrix, x, y, rows, FLOAT * D, panels.data)
    program.run()
    return mixed


def append(cache: Cache, keys: mx.array, values: mx.array) -> tuple[Rows, Rows]:
    """`cache.update_and_fetch`. A buffer that grows is copied now, and its old memory given back.

    Otherwise the caches of all layers would be in memory twice.
    """
    before = cache.nbytes
    rows = cache.update_and_fetch(keys, values)
    if before and cache.nbytes != before:
        mx.eval(rows)
        mx.clear_cache()
    return rows


def product(matrix: StoredMatrix, x: Any, parts: list[Part] | None = None) -> Any:
    """x (rows, width) @ matrix.T, or the parts of it."""
    outputs = parts[0].outputs if parts else matrix.stored.outputs
    y = np.empty((len(x), outputs), np.float32)
    matrix.product(x, y, parts or [Part(0, outputs, 0, len(x))])
    return y


def _normed(x: Any, weight: int, eps: float) -> Any:
    y = np.empty_like(x)
    program = Program()
    program.norm(x.ctypes.data, weight, x.shape[1], len(x), y.ctypes.data, eps)
    program.run()
    return y


def _mlp(layer: Layer, x: Any, parts: tuple[list[Part], list[Part]] | None = None) -> Any:
    inner, outer = parts or (None, None)
    gate, up = product(layer.gate, x, inner), product(layer.up, x, inner)
    program = Program()
    program.swiglu(gate.ctypes.data, up.ctypes.data, gate.size)
    program.run()
    return product(layer.down, gate, outer)


def _experts(layer: Layer, x: Any) -> Any:
    """The mixture of experts of x (N, hidden), as `SparseMoeBlock` computes it."""
    assert layer.experts is not None
    k = layer.experts.num_experts_per_tok
    logits = product(layer.router, x)
    chosen = np.argpartition(logits, -k, axis=-1)[:, -k:]  # (N, K)
    if layer.experts.norm_topk_prob:
        weights = _softmax(np.take_along_axis(logits, chosen, axis=-1))
    else:
        weights = np.take_along_axis(_softmax(logits), chosen, axis=-1)
    flat = chosen.reshape(-1)
    order = np.argsort(flat, kind="stable")
    sorted_experts = flat[order].tolist()
    ends = [i for i in range(1, len(flat)) if sorted_experts[i] != sorted_experts[i - 1]] + [len(flat)]
    spans = list(zip([0, *ends], ends, strict=False))

    def parts(matrix: StoredMatrix) -> list[Part]:
        outputs = matrix.stored.outputs // layer.num_experts
        return [Part(sorted_experts[start] * outputs, outputs, start, stop) for start, stop in spans]

    y = _mlp(layer, x[order // k], (parts(layer.gate), parts(layer.down)))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return np.einsum("nkh,nk->nh", y[back].reshape(len(x), k, -1), weights)


def _softmax(x: Any) -> Any:
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
