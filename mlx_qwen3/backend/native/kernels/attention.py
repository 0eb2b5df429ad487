"""Attention of a few queries to the rows of a KV cache, and to the new rows that are not in it yet.

The thread that computes a head's attention then appends the head's new rows to the cache, if it is told to.
"""

from __future__ import annotations

import llvmlite.ir as ir

from mlx_qwen3.backend.native.kernels.emitter import F32, I64, V8F, Kernel, Value
from mlx_qwen3.backend.native.kernels.steps import LOWEST, softmax_row
from mlx_qwen3.backend.native.kernels.work import Operation, chunks
from mlx_qwen3.backend.native.layout import FLOAT, LANES, SEQUENCE_WORDS, VECTOR, WORD

# Vectors of an output that are summed at a time.
OUTPUTS = 4


def emit(module: ir.Module) -> None:
    """Add the kernel `attend` to `module`."""
    k = Kernel(module, "attend", 3)
    op = Operation(k)
    queries, keys, values, head_dim, heads, key_heads, sequences, count = op.read(8)
    y, scratch, scratch_size = op.read(3)
    scale = op.read_number()
    scores = scratch + op.thread * scratch_size
    group = heads // key_heads
    with chunks(op, count * heads, group) as (start, _):
        sequence, head = start // heads, start % heads // group
        record = sequences + sequence * (SEQUENCE_WORDS * WORD)
        old_keys, old_values, step, cached, first, rows, unseen, appends = (
            k.load(I64, record + WORD * number) for number in range(SEQUENCE_WORDS)
        )
        cached_rows = (old_keys + head * step, old_values + head * step)
        new_step = key_heads * head_dim * FLOAT
        new_rows = tuple(new + (first * key_heads + head) * head_dim * FLOAT for new in (keys, values))
        with k.loop(0, rows) as row, k.loop(0, group) as member:
            place = ((first + row) * heads + head * group + member) * head_dim * FLOAT
            query = queries + place
            _score(k, query, cached_rows[0], head_dim * FLOAT, cached, head_dim, scores)
            with k.when(unseen > -1):
                k.store(k.number(LOWEST), scores + unseen * FLOAT)
            _score(k, query, new_rows[0], new_step, row + 1, head_dim, scores + cached * FLOAT)
            factor = k.splat(softmax_row(k, scores, cached + row + 1, scale))
            spans = [
                (scores, cached_rows[1], head_dim * FLOAT, cached),
                (scores + cached * FLOAT, new_rows[1], new_step, row + 1),
            ]
            _mix(k, spans, head_dim, factor, y + place)
        with k.when(appends.differs(0)), k.loop(0, rows) as row:
            for old, new in zip(cached_rows, new_rows, strict=True):
                _copy(k, new + row * new_step, head_dim, old + (cached + row) * head_dim * FLOAT)
    k.finish()


def _copy(k: Kernel, source: Value, count: Value, target: Value) -> None:
    with k.loop(0, count, LANES) as place:
        k.store(k.load(V8F, source + place * FLOAT), target + place * FLOAT)


def _score(
    k: Kernel, query: Value, keys: Value, step: Value, count: Value, head_dim: Value, scores: Value
) -> None:
    """scores[i] = query . keys[i]"""
    with k.loop(0, count) as number:
        key = keys + number * step
        total = k.variable(k.vector())
        with k.loop(0, head_dim, LANES) as place:
            product = k.load(V8F, query + place * FLOAT) * k.load(V8F, key + place * FLOAT)
            total.set(total.get() + product)
        k.store(k.sum(total.get()), scores + number * FLOAT)


def _mix(
    k: Kernel,
    spans: list[tuple[Value, Value, Value, Value]],
    head_dim: Value,
    factor: Value,
    y: Value,
) -> None:
    """y = factor * the sum of weights[i] * values[i], over spans of (weights, values, step, count)."""
    wide = OUTPUTS * LANES

    def block(first: Value, vectors: int) -> None:
        totals = [k.variable(k.vector()) for _ in range(vectors)]
        for weights, values, step, count in spans:
            with k.loop(0, count) as number:
                weight = k.splat(k.load(F32, weights + number * FLOAT))
                row = values + number * step + first * FLOAT
                for part, total in enumerate(totals):
                    total.set(total.get() + weight * k.load(V8F, row + part * VECTOR))
        for part, total in enumerate(totals):
            k.store(total.get() * factor, y + first * FLOAT + part * VECTOR)

    with k.loop(0, head_dim // wide * wide, wide) as first:
        block(first, OUTPUTS)
    with k.loop(head_dim // wide * wide, head_dim, LANES) as first:
        block(first, 1)
