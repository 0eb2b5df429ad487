"""Kernels of a mixture of experts: the choice of experts, and the sum of what they computed."""

from __future__ import annotations

import llvmlite.ir as ir

from mlx_qwen3.backend.native.kernels.emitter import F32, I64, V8F, Kernel, Value
from mlx_qwen3.backend.native.kernels.steps import LOWEST, exp
from mlx_qwen3.backend.native.kernels.work import Operation, chunks
from mlx_qwen3.backend.native.layout import FLOAT, LANES, WORD

# Numbers of the sum that a thread takes at a time.
SUMS = 256


def emit(module: ir.Module) -> None:
    """Add the kernels `route` and `combine` to `module`."""
    _emit_route(module)
    _emit_combine(module)


def _emit_route(module: ir.Module) -> None:
    """The best experts of each row, and their weights. See `program.Program.route`."""
    k = Kernel(module, "route", 3)
    op = Operation(k)
    logits, experts, rows, chosen, is_normed, ids, weights = op.read(7)
    with chunks(op, rows, 1) as (row, _):
        mine = logits + row * experts * FLOAT
        own_ids, own_weights = ids + row * chosen * WORD, weights + row * chosen * FLOAT
        largest = _largest(k, mine, experts)
        peak = k.load(F32, mine + largest * FLOAT)
        total = k.variable(k.number(0.0))
        with k.when(is_normed.equals(0)):  # softmax over all experts
            sums = k.variable(k.vector())
            with k.loop(0, experts, LANES) as place:
                sums.set(sums.get() + exp(k, k.load(V8F, mine + place * FLOAT) - k.splat(peak)))
            total.set(k.sum(sums.get()))
        with k.loop(0, chosen) as number:
            best = _largest(k, mine, experts)
            place = mine + best * FLOAT
            weight = _exp_of_one(k, k.load(F32, place) - peak)
            k.store(k.number(LOWEST), place)
            k.store(best, own_ids + number * WORD)
            k.store(weight, own_weights + number * FLOAT)
            with k.when(is_normed.differs(0)):
                total.set(total.get() + weight)
        with k.loop(0, chosen) as number:
            place = own_weights + number * FLOAT
            k.store(k.load(F32, place) / total.get(), place)
    k.finish()


def _largest(k: Kernel, numbers: Value, count: Value) -> Value:
    """The place of the largest of `count` numbers; the first of equal ones."""
    best = k.variable(k.integer(0))
    value = k.variable(k.load(F32, numbers))
    with k.loop(1, count) as place:
        number = k.load(F32, numbers + place * FLOAT)
        with k.when(number > value.get()):
            best.set(place)
            value.set(number)
    return best.get()


def _exp_of_one(k: Kernel, number: Value) -> Value:
    vector = exp(k, k.splat(number))
    return Value(k.builder, k.builder.extract_element(vector.raw, ir.Constant(I64, 0)))


def _emit_combine(module: ir.Module) -> None:
    """x += the weighted sum of the rows of y that belong to each row. See `program.Program.combine`."""
    k = Kernel(module, "combine", 3)
    op = Operation(k)
    y, weights, chosen, width, rows, x = op.read(6)
    with chunks(op, rows * width, SUMS) as (start, stop), k.loop(start, stop, LANES) as place:
        row, column = place // width, place % width
        total = k.variable(k.load(V8F, x + place * FLOAT))
        with k.loop(0, chosen) as number:
            pair = row * chosen + number
            weight = k.splat(k.load(F32, weights + pair * FLOAT))
            total.set(total.get() + weight * k.load(V8F, y + (pair * width + column) * FLOAT))
        k.store(total.get(), x + place * FLOAT)
    k.finish()
