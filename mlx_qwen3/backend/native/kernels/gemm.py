"""Kernels for the product of many rows with a stored matrix.

A thread unpacks some rows of the matrix into memory of its own and multiplies them with all of the input,
which was arranged in panels of sixteen rows first. The innermost loop multiplies six rows of the matrix with
one panel: twelve vectors of sums stay in registers, for eight loads a step
(https://doi.org/10.1145/1356052.1356053).
"""

from __future__ import annotations

import llvmlite.ir as ir

from mlx_qwen3.backend.native.kernels.emitter import F32, I64, V8F, Kernel, Value
from mlx_qwen3.backend.native.kernels.formats import row_of
from mlx_qwen3.backend.native.kernels.products import unpack_row
from mlx_qwen3.backend.native.kernels.work import Operation, chunks
from mlx_qwen3.backend.native.layout import (
    FLOAT,
    GROUP,
    LANES,
    PANEL,
    TILE,
    VECTOR,
    Format,
    matmul_name,
)


def emit_helpers(module: ir.Module) -> None:
    """Add `arrange_panels` and `transpose`, which are the same for all formats."""
    _emit_arrange(module)
    _emit_transpose(module)


def _emit_arrange(module: ir.Module) -> None:
    """Arrange x (rows, width) in panels (width, 16), zeros behind the last row. See `Program.matmul`."""
    k = Kernel(module, "arrange_panels", 3)
    op = Operation(k)
    x, width, rows, panels = op.read(4)
    with chunks(op, (rows + (PANEL - 1)) // PANEL, 1) as (panel, _):
        target = panels + panel * width * (PANEL * FLOAT)
        for number in range(PANEL):
            row = panel * PANEL + number
            source = x + row * width * FLOAT
            with k.when(row < rows), k.loop(0, width) as place:
                value = k.load(F32, source + place * FLOAT)
                k.store(value, target + place * (PANEL * FLOAT) + number * FLOAT)
            with k.when((row < rows).equals(0)), k.loop(0, width) as place:
                k.store(k.number(0.0), target + place * (PANEL * FLOAT) + number * FLOAT)
    k.finish()


def _emit_transpose(module: ir.Module) -> None:
    """y (columns, rows) = x (rows, columns).T. See `Program.transpose`."""
    k = Kernel(module, "transpose", 3)
    op = Operation(k)
    x, rows, columns, y, y_stride = op.read(5)
    with (
        chunks(op, rows, 64) as (start, stop),
        k.loop(0, columns) as column,
        k.loop(start, stop) as row,
    ):
        value = k.load(F32, x + (row * columns + column) * FLOAT)
        k.store(value, y + column * y_stride + row * FLOAT)
    k.finish()


def emit(module: ir.Module, fmt: Format) -> None:
    """y (rows, outputs) = x @ matrix.T, where x was arranged in panels."""
    k = Kernel(module, matmul_name(fmt), 3)
    op = Operation(k)
    weight, scales, biases, width, outputs = op.read(5)
    panels, y, y_stride, rows, scratch, scratch_size = op.read(6)
    tile = scratch + op.thread * scratch_size
    with k.builder.goto_entry_block():
        sums = Value(k.builder, k.builder.ptrtoint(k.builder.alloca(F32, GROUP * PANEL), I64))
    multiply = _emit_group(module, fmt)
    with chunks(op, outputs, TILE) as (start, stop):
        with k.loop(start, stop) as row:
            stored = row_of(fmt, weight, scales, biases, width, row)
            unpack_row(k, fmt, stored, width, tile + (row - start) * width * FLOAT)
        with k.loop(0, rows, PANEL) as first, k.loop(start, stop, GROUP) as row:
            k.call(
                multiply, tile + (row - start) * width * FLOAT, panels + first * width * FLOAT, width, sums
            )
            with k.loop(0, k.smaller(stop - row, k.integer(GROUP))) as number:
                place = y + first * y_stride + (row + number) * FLOAT
                with k.loop(0, k.smaller(rows - first, k.integer(PANEL))) as member:
                    value = k.load(F32, sums + (number * PANEL + member) * FLOAT)
                    k.store(value, place + member * y_stride)
    k.finish()


def _emit_group(module: ir.Module, fmt: Format) -> ir.Function:
    """group(rows of the matrix, panel, width, sums): the products of six rows with a panel, (6, 16)."""
    k = Kernel(module, f"group_{fmt.name}", 4, public=False)
    tile, panel, width, sums = k.arguments
    totals = [[k.variable(k.vector()) for _ in range(PANEL // LANES)] for _ in range(GROUP)]
    with k.loop(0, width) as place:
        inputs = [
            k.load(V8F, panel + place * (PANEL * FLOAT) + half * VECTOR) for half in range(PANEL // LANES)
        ]
        for number in range(GROUP):
            value = k.splat(k.load(F32, tile + (width * number + place) * FLOAT))
            for half, total in enumerate(totals[number]):
                total.set(total.get() + inputs[half] * value)
    for number in range(GROUP):
        for half, total in enumerate(totals[number]):
            k.store(total.get(), sums + (number * PANEL + half * LANES) * FLOAT)
    k.finish()
    return k.function
