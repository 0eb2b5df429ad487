"""Kernels over a stored matrix: its product with a few rows, and its rows in fp32."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import llvmlite.ir as ir

from mlx_qwen3.backend.native.kernels.emitter import F32, I64, V8F, Kernel, Value
from mlx_qwen3.backend.native.kernels.formats import (
    Row,
    arranged,
    arranged_input,
    dequantized,
    row_of,
    scale_and_bias,
    widened,
)
from mlx_qwen3.backend.native.kernels.work import Operation, chunks
from mlx_qwen3.backend.native.layout import (
    BLOCK,
    FLOAT,
    LANES,
    MOST_ROWS,
    VECTOR,
    WORD,
    Format,
    arranged_bytes,
    experts_name,
    product_name,
    unpack_name,
)

# Output rows that a thread takes at a time, of a product and of unpacking.
PRODUCT_ROWS, UNPACK_ROWS = 32, 16
# How far ahead of the values that are multiplied the matrix is fetched from memory, in bytes.
AHEAD = 2048


def emit(module: ir.Module, fmt: Format) -> None:
    """Add the kernels of a format to `module`."""
    emit_dot = _emit_plain_dot if fmt.is_plain else _emit_quantized_dot
    dots = {rows: emit_dot(module, fmt, rows) for rows in range(1, MOST_ROWS + 1)}
    _emit_product(module, fmt, dots)
    _emit_unpack(module, fmt)


# dot(weight, scales, biases, width, x, stride of x, sums): some input rows times one stored row. The sums go
# to memory, one for each input row.


def _emit_plain_dot(module: ir.Module, fmt: Format, rows: int) -> Any:
    k = Kernel(module, f"dot_{fmt.name}_{rows}", 7, public=False)
    weight, _, _, width, x, stride, sums = k.arguments
    # Several sums at a time, because an addition takes several cycles.
    parts = max(2, 4 // rows)
    totals = [[k.variable(k.vector()) for _ in range(parts)] for _ in range(rows)]

    def add(first: Value, part: int) -> None:
        values = widened(k, fmt.mode, weight + first * (fmt.bits // 8), LANES)
        for number in range(rows):
            total = totals[number][part % parts]
            total.set(total.get() + values * k.load(V8F, x + stride * number + first * FLOAT))

    with k.loop(0, width // BLOCK * BLOCK, BLOCK) as start:
        for part in range(BLOCK // LANES):
            add(start + part * LANES, part)
    with k.loop(width // BLOCK * BLOCK, width // LANES * LANES, LANES) as start:
        add(start, 0)
    rest = [k.variable(k.number(0.0)) for _ in range(rows)]
    with k.loop(width // LANES * LANES, width) as place:
        value = widened(k, fmt.mode, weight + place * (fmt.bits // 8), 1)
        for number, last in enumerate(rest):
            last.set(last.get() + value * k.load(F32, x + stride * number + place * FLOAT))
    for number in range(rows):
        total = reduce(lambda a, b: a + b, [part.get() for part in totals[number]])
        k.store(k.sum(total) + rest[number].get(), sums + FLOAT * number)
    k.finish()
    return k.function


def _emit_quantized_dot(module: ir.Module, fmt: Format, rows: int) -> Any:
    """Here x is as `_emit_arrange` made it: a group's bias is multiplied with the group's sum."""
    k = Kernel(module, f"dot_{fmt.name}_{rows}", 7, public=False)
    weight, scales, biases, width, x, stride, sums = k.arguments
    row, block = Row(weight, scales, biases), fmt.block
    by_scale = [k.variable(k.vector()) for _ in range(rows)]
    by_bias = [k.variable(k.vector()) for _ in range(rows)]
    with k.loop(0, width, block) as start:
        k.prefetch(weight + start * fmt.bits // 8 + AHEAD)
        scale, bias = scale_and_bias(k, fmt, row, start)
        assert scale is not None
        parts: list[list[Value]] = [[] for _ in range(rows)]
        for place, values in enumerate(arranged(k, fmt, row, start, block)):
            for number in range(rows):
                product = values * k.load(V8F, x + stride * number + (start + place * LANES) * FLOAT)
                mine = parts[number]
                if len(mine) < 2:  # two sums at a time, because an addition takes several cycles
                    mine.append(product)
                else:
                    mine[place % 2] = mine[place % 2] + product
        for number in range(rows):
            total = reduce(lambda a, b: a + b, parts[number])
            by_scale[number].set(by_scale[number].get() + total * scale)
            if bias is not None:
                group_sum = k.load(V8F, x + stride * number + width * FLOAT + start // block * VECTOR)
                by_bias[number].set(by_bias[number].get() + group_sum * bias)
    for number in range(rows):
        k.store(k.sum(by_scale[number].get() + by_bias[number].get()), sums + FLOAT * number)
    k.finish()
    return k.function


def _emit_arrange(module: ir.Module, fmt: Format) -> Any:
    """arrange(x, stride, rows, width, target): input in the order of `arranged`, and its groups' sums."""
    k = Kernel(module, f"arrange_{fmt.name}", 5, public=False)
    x, stride, rows, width, target = k.arguments
    block = fmt.block
    with k.loop(0, rows) as number, k.loop(0, width, block) as start:
        row = target + number * arranged_bytes(fmt, width)
        for place, values in enumerate(arranged_input(k, fmt, x + number * stride, start, block)):
            k.store(values, row + (start + place * LANES) * FLOAT)
        plain = [k.load(V8F, x + number * stride + (start + p) * FLOAT) for p in range(0, block, LANES)]
        k.store(reduce(lambda a, b: a + b, plain), row + width * FLOAT + start // block * VECTOR)
    k.finish()
    return k.function


def _own_input(
    op: Operation, fmt: Format, x: Value, stride: Value, rows: Value, width: Value, target: Value
) -> tuple[Value, Any, Callable[[], None]]:
    """Where `dot` reads the input, and what a thread emits before: its own copy, for quantized formats."""
    k = op.kernel
    if fmt.is_plain:
        return x, stride, lambda: None
    arrange = _emit_arrange(k.module, fmt)

    def before() -> None:
        k.call(arrange, x, stride, rows, width, target)

    return target, arranged_bytes(fmt, width), before


def emit_experts(module: ir.Module, fmt: Format) -> None:
    """Products with one of several matrices each. See `program.Program.experts`."""
    dot = (_emit_plain_dot if fmt.is_plain else _emit_quantized_dot)(module, fmt, 1)
    k = Kernel(module, experts_name(fmt), 3)
    op = Operation(k)
    weight, scales, biases, width, outputs = op.read(5)
    x, rows, y, pairs, sharing, ids, scratch, scratch_size = op.read(8)
    own = scratch + op.thread * scratch_size
    x, x_stride, before = _own_input(op, fmt, x, width * FLOAT, rows, width, own)
    with chunks(op, pairs * outputs, PRODUCT_ROWS, before) as (start, stop), k.loop(start, stop) as place:
        pair = place // outputs
        row = k.load(I64, ids + pair * WORD) * outputs + place % outputs
        stored = row_of(fmt, weight, scales, biases, width, row)
        k.call(dot, *stored, width, x + pair // sharing * x_stride, x_stride, y + place * FLOAT)
    k.finish()


def _emit_product(module: ir.Module, fmt: Format, dots: dict[int, Any]) -> None:
    """y = x @ matrix.T, plus what `addend` holds. See `program.Program.product`."""
    k = Kernel(module, product_name(fmt), 3)
    op = Operation(k)
    weight, scales, biases, width, outputs = op.read(5)
    x, x_stride, y, y_stride, rows, addend, scratch, scratch_size = op.read(8)
    with k.builder.goto_entry_block():
        sums = Value(k.builder, k.builder.ptrtoint(k.builder.alloca(F32, MOST_ROWS), I64))
    x, x_stride, before = _own_input(op, fmt, x, x_stride, rows, width, scratch + op.thread * scratch_size)

    def put(row: Value, first: Value, count: int) -> None:
        stored = row_of(fmt, weight, scales, biases, width, row)
        k.call(dots[count], *stored, width, x + first * x_stride, x_stride, sums)
        for number in range(count):
            place = (first + number) * y_stride + row * FLOAT
            total = k.variable(k.load(F32, sums + FLOAT * number))
            with k.when(addend.differs(0)):
                total.set(total.get() + k.load(F32, addend + place))
            k.store(total.get(), y + place)

    whole = rows // MOST_ROWS * MOST_ROWS
    with chunks(op, outputs, PRODUCT_ROWS, before) as (start, stop), k.loop(start, stop) as row:
        with k.loop(0, whole, MOST_ROWS) as first:
            put(row, first, MOST_ROWS)
        for count in range(1, MOST_ROWS):
            with k.when((rows - whole).equals(count)):
                put(row, whole, count)
    k.finish()


def _emit_unpack(module: ir.Module, fmt: Format) -> None:
    """Rows of a matrix in fp32, those that `ids` names or all. See `program.Program.unpack`."""
    k = Kernel(module, unpack_name(fmt), 3)
    op = Operation(k)
    weight, scales, biases, width, rows, ids, y, y_stride = op.read(8)
    with chunks(op, rows, UNPACK_ROWS) as (start, stop), k.loop(start, stop) as number:
        wanted = k.variable(number)
        with k.when(ids.differs(0)):
            wanted.set(k.load(I64, ids + number * 8))
        row = row_of(fmt, weight, scales, biases, width, wanted.get())
        unpack_row(k, fmt, row, width, y + number * y_stride)
    k.finish()


def unpack_row(k: Kernel, fmt: Format, row: Row, width: Value, target: Value) -> None:
    """Emit: the values of a row go to `target`, in fp32."""
    block = fmt.block

    def put(start: Value, count: int) -> None:
        scale, bias = scale_and_bias(k, fmt, row, start)
        for place in range(0, count, LANES):
            values = dequantized(k, fmt, row, start + place, scale, bias)
            k.store(values, target + (start + place) * FLOAT)

    with k.loop(0, width // block * block, block) as first:
        put(first, block)
    if fmt.is_plain:
        with k.loop(width // block * block, width // LANES * LANES, LANES) as first:
            put(first, LANES)
        with k.loop(width // LANES * LANES, width) as place:
            value = widened(k, fmt.mode, row.weight + place * (fmt.bits // 8), 1)
            k.store(value, target + place * FLOAT)
