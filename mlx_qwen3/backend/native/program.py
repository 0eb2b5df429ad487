"""Programs: operations that run one after another on the pool, each on all threads.

Addresses are those of arrays that the caller keeps alive.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from mlx_qwen3.backend.native import layout, library
from mlx_qwen3.backend.native.layout import Format, Unit
from mlx_qwen3.backend.native.pool import pool, run_alone


class Stored(NamedTuple):
    """A matrix (outputs, width) as it is stored, by its addresses. Those that its format lacks are 0."""

    fmt: Format
    weight: int
    scales: int
    biases: int
    width: int
    outputs: int

    def part(self, first: int, outputs: int) -> Stored:
        """The rows `first` up to `first` + `outputs`."""
        fmt, width = self.fmt, self.width
        skipped = first * (width // fmt.group_size) * fmt.scale_bytes if fmt.group_size else 0
        place = self.weight + first * width * fmt.bits // 8, self.scales + skipped, self.biases + skipped
        return Stored(fmt, *place, width, outputs)


STEPS = {
    "attend": Unit("attention"),
    "arrange_panels": Unit("panels"),
    "transpose": Unit("panels"),
    "route": Unit("routing"),
    "combine": Unit("routing"),
}
"""The unit of a kernel that is not in `steps`."""


def bits_of(number: float) -> int:
    """A number in fp32, as an operand."""
    return int(struct.unpack("<i", struct.pack("<f", number))[0])


def _kernel(fmt: Format, name: str) -> int:
    return library.address_of(Unit("products", fmt), name)


def _matmul(fmt: Format) -> int:
    return library.address_of(Unit("matmul", fmt), layout.matmul_name(fmt))


def _step(name: str) -> int:
    return library.address_of(STEPS.get(name, Unit("steps")), name)


def prepare(formats: Iterable[Format], experts: Iterable[Format] = ()) -> None:
    """Load, or compile, all kernels for matrices of these formats, and for experts of these."""
    for name in ("norm", "attend", "arrange_panels"):
        _step(name)
    for fmt in experts:
        _step("route")
        library.address_of(Unit("experts", fmt), layout.experts_name(fmt))
    for fmt in formats:
        _kernel(fmt, layout.product_name(fmt))
        _matmul(fmt)


class Program:
    """A list of operations. Operands may be changed between runs: `set`."""

    def __init__(self) -> None:
        self._rows: list[list[int]] = []
        self._operations: Any = np.zeros((0, layout.SLOTS), np.int64)
        self._scratch_uses: list[tuple[int, int]] = []
        self._scratch_size = 0
        self._scratch: Any = None

    def __len__(self) -> int:
        return len(self._rows)

    def _add(self, kernel: int, *operands: int) -> int:
        self._rows.append([kernel, 0, 0, *operands])
        return len(self._rows) - 1

    def product(
        self,
        matrix: Stored,
        x: int,
        y: int,
        rows: int,
        y_stride: int | None = None,
        addend: int = 0,
    ) -> int:
        """y (rows, outputs) = x (rows, width) @ matrix.T, plus `addend`, which is shaped like y.

        y_stride: bytes from one row of y to the next.
        """
        need = layout.scratch_bytes(matrix.fmt, rows, matrix.width)
        number = self._add(
            _kernel(matrix.fmt, layout.product_name(matrix.fmt)),
            matrix.weight,
            matrix.scales,
            matrix.biases,
            matrix.width,
            matrix.outputs,
            x,
            4 * matrix.width,
            y,
            y_stride or 4 * matrix.outputs,
            rows,
            addend,
            0,
            0,
        )
        return self._needs_scratch(number, need)

    def matmul(self, matrix: Stored, x: int, y: int, rows: int, y_stride: int, panels: int) -> int:
        """y (rows, outputs) = x (rows, width) @ matrix.T, for many rows.

        panels: memory of `layout.panels_bytes`.
        """
        self._add(_step("arrange_panels"), x, matrix.width, rows, panels)
        kernel = _matmul(matrix.fmt)
        place = (matrix.weight, matrix.scales, matrix.biases, matrix.width, matrix.outputs)
        number = self._add(kernel, *place, panels, y, y_stride, rows, 0, 0)
        return self._needs_scratch(number, layout.tile_bytes(matrix.width))

    def experts(self, matrices: Stored, x: int, rows: int, y: int, ids: int, pairs: int) -> int:
        """y (pairs, outputs): each pair of a row and an expert multiplies x (rows, width) with one matrix.

        matrices: Those of all experts, one below the other; `outputs` is that of one. ids: the experts of the
        pairs, 64-bit integers. As many neighbouring pairs share a row as there are pairs a row.
        """
        fmt, width = matrices.fmt, matrices.width
        number = self._add(
            library.address_of(Unit("experts", fmt), layout.experts_name(fmt)),
            *(matrices.weight, matrices.scales, matrices.biases, width, matrices.outputs),
            *(x, rows, y, pairs, pairs // rows, ids, 0, 0),
        )
        return self._needs_scratch(number, layout.scratch_bytes(fmt, rows, width))

    def route(self, logits: int, shape: tuple[int, int, int], is_normed: bool, ids: int, weights: int) -> int:
        """The `chosen` best experts of each row, and their weights by softmax.

        shape: (rows, experts, chosen). is_normed: the weights of a row sum to 1. The logits are overwritten.
        """
        rows, experts, chosen = shape
        return self._add(_step("route"), logits, experts, rows, chosen, int(is_normed), ids, weights)

    def combine(self, y: int, weights: int, chosen: int, width: int, rows: int, x: int) -> int:
        """x (rows, width) += the sum over `chosen` of weights (rows, chosen) * y (rows, chosen, width)."""
        return self._add(_step("combine"), y, weights, chosen, width, rows, x)

    def _needs_scratch(self, number: int, size: int) -> int:
        """The last two operands of an operation are the scratch memory of its threads, and its size."""
        self._scratch_uses.append((number, len(self._rows[number]) - 2))
        self._scratch_size = max(self._scratch_size, -(-size // 64) * 64)
        return number

    def unpack(self, matrix: Stored, rows: int, y: int, ids: int = 0, y_stride: int | None = None) -> int:
        """y (rows, width) = rows of a matrix in fp32: the first, or those that 64-bit integers name."""
        kernel = _kernel(matrix.fmt, layout.unpack_name(matrix.fmt))
        place = (matrix.weight, matrix.scales, matrix.biases, matrix.width)
        return self._add(kernel, *place, rows, ids, y, y_stride or 4 * matrix.width)

    def norm(self, x: int, weight: int, width: int, rows: int, y: int, eps: float) -> int:
        """y = RMSNorm of rows of x (rows, width)."""
        return self._add(_step("norm"), x, weight, width, rows, y, bits_of(eps))

    def swiglu(self, gate: int, up: int, size: int) -> int:
        """gate = silu(gate) * up, number by number."""
        return self._add(_step("swiglu"), gate, up, size)

    def rotate(
        self,
        x: int,
        weight: int,
        shape: tuple[int, int, int],
        table: int,
        y: int,
        steps_of_y: tuple[int, int],
        eps: float,
    ) -> int:
        """Heads of x (rows, heads, D) are normalised, rotated, and written to y.

        table: cosines and sines of the rows, (rows, D). steps_of_y: bytes from a row, and from a head, to the
        next. x is changed as well.
        """
        rows, heads, head_dim = shape
        operands = (x, weight, head_dim, heads, rows, table, y, *steps_of_y, bits_of(eps))
        return self._add(_step("rotate"), *operands)

    def attend(
        self,
        queries: int,
        keys: int,
        values: int,
        shape: tuple[int, int, int],
        sequences: int,
        count: int,
        y: int,
        scale: float,
    ) -> int:
        """Causal attention of new rows (rows, heads, D). See `layout.SEQUENCE_WORDS` for `sequences`."""
        heads, key_heads, head_dim = shape
        # The scale stands behind the scratch memory, whose size is set when the lengths are known.
        operands = (queries, keys, values, head_dim, heads, key_heads, sequences, count, y, 0, 0)
        number = self._add(_step("attend"), *operands)
        self._needs_scratch(number, 0)
        self._rows[number].append(bits_of(scale))
        return number

    def softmax(self, scores: int, rows: int, stride: int, block: int, visible: int, scale: float) -> int:
        """Softmax of rows of `stride` scores; row i sees the first `visible` + i % `block` of them."""
        return self._add(_step("softmax"), scores, rows, stride, block, visible, bits_of(scale))

    def transpose(self, x: int, rows: int, columns: int, y: int, y_stride: int) -> int:
        """y (columns, rows) = x (rows, columns).T; y_stride: bytes from one row of y to the next."""
        return self._add(_step("transpose"), x, rows, columns, y, y_stride)

    def exp(self, x: int, y: int, size: int) -> int:
        """y = e^x; `size` is a multiple of eight."""
        return self._add(_step("exp"), x, y, size)

    def set(self, number: int, operand: int, value: int) -> None:
        """Change an operand, counted from 0."""
        self._rows[number][layout.OPERANDS + operand] = value
        if number < len(self._operations):
            self._operations[number, layout.OPERANDS + operand] = value

    def run(self, start: int = 0, stop: int | None = None, scratch: int = 0, alone: bool = False) -> None:
        """Run operations `start` up to `stop`.

        scratch: bytes that attention needs for each thread. alone: on the calling thread only.
        """
        self._finish(scratch)
        run = run_alone if alone else pool().run
        run(self._operations, start, len(self._rows) if stop is None else stop)

    def _finish(self, scratch: int) -> None:
        size = max(self._scratch_size, -(-scratch // 64) * 64)
        is_new = len(self._operations) != len(self._rows)
        if is_new:
            self._operations = np.zeros((len(self._rows), layout.SLOTS), np.int64)
            for number, row in enumerate(self._rows):
                self._operations[number, : len(row)] = row
        if self._scratch_uses and (is_new or self._scratch is None or size > self._scratch_size):
            self._scratch_size = size
            self._scratch = np.empty(pool().threads * size + 64, np.uint8)
            for number, place in self._scratch_uses:
                self._operations[number, place] = -(-self._scratch.ctypes.data // 64) * 64
                self._operations[number, place + 1] = size
