"""The modules that hold matrices, as MLX's CPU backend computes them fast: in fp32, by way of BLAS.

Each is a subclass of the module whose place it takes (backend.py), with the same parameters. A matrix
that fits the memory budget is held in fp32 (a quantized one besides its stored form, under `_dense`,
which MLX does not count as a parameter). Any other stays as stored, and is turned to fp32 a tile of
output rows at a time whenever it is multiplied with; so are the scales of a quantized one.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.backend.matmul import dequantize_fp32, fp32, product, tiled
from mlx_qwen3.model.mlp import QuantizedSwitchLinear, SwitchLinear

# fp32 bytes of what is dequantized at once for a copy that is held.
PART_BYTES = 8 * 2**20
# Up to this many rows MLX's quantized product beats dequantizing the matrix first.
QUANTIZED_ROWS = 2
# From this many rows an expert on, one BLAS product for each expert beats MLX's gathered product.
ROWS_PER_EXPERT = 4

Rows = slice | mx.array | int  # of a matrix

# MLX's CPU backend runs one operation of a stream at a time, most of them on one core.
STREAMS = [mx.new_thread_local_stream(mx.Device(mx.cpu)) for _ in range(min(4, os.cpu_count() or 1))]


class _Dense:
    """Holds its matrix in fp32 where the budget allows, else casts a tile at a time."""

    weight: mx.array

    def make_dense(self, budget: int) -> int:
        """Cast the matrix to fp32 if that takes at most `budget` more bytes; return how many it took."""
        extra = 4 * self.weight.size - self.weight.nbytes
        if not 0 < extra <= budget:
            return 0
        self.weight = self.weight.astype(mx.float32)
        return extra

    def _multiply(self, x: mx.array) -> mx.array:
        if self.weight.dtype == mx.float32:
            return product(x, self.weight)
        return tiled(x, self.weight.shape[0], self._rows)

    def _rows(self, rows: Rows) -> mx.array:
        """Those rows in fp32."""
        return self.weight[rows].astype(mx.float32)


class _Quantized:
    """Holds an fp32 copy of its quantized matrix where the budget allows, else dequantizes tiles."""

    weight: mx.array
    scales: mx.array
    bits: int
    group_size: int
    mode: str

    def make_dense(self, budget: int) -> int:
        """Keep an fp32 copy if it takes at most `budget` bytes; return how many it took."""
        size = 4 * self.weight.size * 32 // self.bits
        if size > budget:
            return 0
        self._dense = self._all_dequantized()
        self._dense_of = self.weight  # the copy is of no use once other weights were loaded
        return size

    def _all_dequantized(self) -> mx.array:
        """The matrix in fp32, a few parts at a time: unpacking takes several times the room of its result."""
        rows = self.weight.shape[0]
        dense = mx.zeros((rows, self.weight.shape[-1] * 32 // self.bits))
        step = max(1, PART_BYTES * rows // dense.nbytes)
        starts = range(0, rows, step)
        for first in range(0, len(starts), len(STREAMS)):
            parts = {}
            for start, stream in zip(starts[first:], STREAMS, strict=False):
                with mx.stream(stream):
                    parts[start] = self._rows(slice(start, start + step))
            mx.eval(dense, list(parts.values()))
            for start, part in parts.items():
                dense[start : start + step] = part
        return dense

    def _rows(self, rows: Rows) -> mx.array:
        """Those rows in fp32."""
        biases = self.get("biases")  # type: ignore[attr-defined]
        biases = None if biases is None else biases[rows]
        return dequantize_fp32(self.weight[rows], self.scales[rows], biases, **self._settings())

    def _settings(self) -> dict[str, Any]:
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def _held(self) -> mx.array | None:
        """The fp32 copy, if there is one of the present weights."""
        return self._dense if self.get("_dense_of") is self.weight else None  # type: ignore[attr-defined]

    def _multiply(self, x: mx.array) -> mx.array:
        x = fp32(x)
        if (dense := self._held()) is not None:
            return product(x, dense)
        if x.size // x.shape[-1] > QUANTIZED_ROWS:
            return tiled(x, self.weight.shape[0], self._rows)
        biases = self.get("biases")  # type: ignore[attr-defined]
        return mx.quantized_matmul(x, self.weight, self.scales, biases, transpose=True, **self._settings())


class _Stored(Protocol):
    """What the modules below know of a matrix, however it is stored."""

    def _multiply(self, x: mx.array) -> mx.array: ...

    def _rows(self, rows: Rows) -> mx.array: ...


class _Linear:
    def __call__(self: _Stored, x: mx.array) -> mx.array:
        y = self._multiply(x)
        return y + self.bias if "bias" in self else y  # type: ignore[attr-defined, operator]


class CpuLinear(_Linear, _Dense, nn.Linear):
    """nn.Linear, its 16-bit matrix multiplied in fp32."""


class CpuQuantizedLinear(_Linear, _Quantized, nn.QuantizedLinear):
    """nn.QuantizedLinear, multiplied in fp32."""


class _Embedding:
    """Returns fp32, and as an output head multiplies in fp32."""

    def __call__(self: _Stored, x: mx.array) -> mx.array:
        return self._rows(x)

    def as_linear(self: _Stored, x: mx.array) -> mx.array:
        return self._multiply(x)


class CpuEmbedding(_Embedding, _Dense, nn.Embedding):
    """nn.Embedding, its 16-bit matrix read and multiplied in fp32."""


class CpuQuantizedEmbedding(_Embedding, _Quantized, nn.QuantizedEmbedding):
    """nn.QuantizedEmbedding, read and multiplied in fp32."""


class _Experts:
    """Multiplies with one expert after another where each has many rows, else as its base class."""

    def __call__(self, x: mx.array, experts: mx.array, is_sorted: bool = False) -> mx.array:
        """x (M, 1, in), experts (M,) -> (M, 1, out)."""
        x = fp32(x)
        runs = self._runs(experts)
        if not runs:
            return super().__call__(x, experts, is_sorted)  # type: ignore[misc]
        return mx.concatenate([product(x[start:stop], self._rows(i)) for i, start, stop in runs])  # type: ignore[attr-defined]

    def _runs(self, experts: mx.array) -> list[tuple[int, int, int]]:
        """(expert, first row, end) of the rows that go through one expert; none to gather instead."""
        if self._is_gathered(experts.size):
            return []
        try:
            chosen: list[int] = experts.tolist()  # type: ignore[assignment]
        except ValueError:  # being traced by mx.compile: which experts is not known yet
            return []
        ends = [i for i in range(1, len(chosen)) if chosen[i] != chosen[i - 1]] + [len(chosen)]
        return [(chosen[start], start, stop) for start, stop in zip([0, *ends], ends, strict=False)]

    def _is_gathered(self, rows: int) -> bool:
        """Whether MLX's gathered product is as fast for so many rows."""
        return rows < ROWS_PER_EXPERT * self.weight.shape[0]  # type: ignore[attr-defined]


class CpuSwitchLinear(_Experts, _Dense, SwitchLinear):
    """SwitchLinear, its 16-bit matrices multiplied in fp32."""

    def _is_gathered(self, rows: int) -> bool:
        return self.weight.dtype == mx.float32 and super()._is_gathered(rows)


class CpuQuantizedSwitchLinear(_Experts, _Quantized, QuantizedSwitchLinear):
    """QuantizedSwitchLinear, multiplied in fp32."""


CPU_KINDS: dict[type, type] = {
    nn.Linear: CpuLinear,
    nn.Embedding: CpuEmbedding,
    nn.QuantizedLinear: CpuQuantizedLinear,
    nn.QuantizedEmbedding: CpuQuantizedEmbedding,
    SwitchLinear: CpuSwitchLinear,
    QuantizedSwitchLinear: CpuQuantizedSwitchLinear,
}
