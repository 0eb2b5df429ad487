"""Layers that hold a matrix, as MLX's CPU backend computes them fast: in fp32, through BLAS.

`prepare` puts each in place of the layer it subclasses, which has the same parameters. A layer combines how
its matrix is stored (`_Plain`, `_Quantized`) with what it is used for (`_Linear`, `_Embedding`, `_Experts`).

A matrix that fits the memory budget is held in fp32: a plain one as its `weight`, a quantized one as a copy
under `_dense`, which MLX does not count as a parameter. Any other matrix stays as stored. Each product
converts it to fp32, a tile of output rows at a time, and the scales of a quantized one likewise.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.backend.matmul import dequantize_fp32, fp32, product, tiled_product
from mlx_qwen3.model.mlp import QuantizedSwitchLinear, SwitchLinear

# fp32 bytes that are dequantized at once while a copy is made.
PART_BYTES = 8 * 2**20
# Up to this many input rows MLX's quantized product beats dequantizing the matrix first.
QUANTIZED_ROWS = 2
# From this many input rows per expert on, one BLAS product per expert beats MLX's gathered product.
ROWS_PER_EXPERT = 4

Index = slice | mx.array | int
"""Selects output rows of a matrix, or one expert's matrix."""


@cache
def _streams() -> list[mx.ThreadLocalStream]:
    """MLX's CPU backend runs the operations of a stream one by one, most of them on one core."""
    return [mx.new_thread_local_stream(mx.Device(mx.cpu)) for _ in range(min(4, os.cpu_count() or 1))]


class _Matrix(nn.Module):
    """A matrix (out, in), or one per expert, multiplied in fp32 however it is stored."""

    weight: mx.array

    def make_dense(self, budget: int) -> int:
        """Hold the matrix in fp32 if that takes at most `budget` more bytes; return how many it took."""
        raise NotImplementedError

    def _rows(self, index: Index) -> mx.array:
        """These rows in fp32."""
        raise NotImplementedError

    def _multiply(self, x: mx.array) -> mx.array:
        """x (..., in) -> (..., out), in fp32."""
        raise NotImplementedError


class _Plain(_Matrix):
    """A matrix stored in 16 bits or in fp32."""

    def make_dense(self, budget: int) -> int:
        extra = 4 * self.weight.size - self.weight.nbytes
        if not 0 < extra <= budget:
            return 0
        self.weight = self.weight.astype(mx.float32)
        return extra

    def _rows(self, index: Index) -> mx.array:
        return self.weight[index].astype(mx.float32)

    def _multiply(self, x: mx.array) -> mx.array:
        if self.weight.dtype == mx.float32:
            return product(x, self.weight)
        return tiled_product(x, self.weight.shape[0], self._rows)


class _Quantized(_Matrix):
    """A quantized matrix, with an fp32 copy where the budget allows."""

    scales: mx.array
    bits: int
    group_size: int
    mode: str

    def make_dense(self, budget: int) -> int:
        size = 4 * self.weight.size * 32 // self.bits
        if size > budget:
            return 0
        self._dense = self._dequantized()
        self._dense_of = self.weight  # the copy is out of date once other weights are loaded
        return size

    def _dequantized(self) -> mx.array:
        """The matrix in fp32, made in parts: unpacking takes several times the memory of its result."""
        rows = self.weight.shape[0]
        dense = mx.zeros((rows, self.weight.shape[-1] * 32 // self.bits))
        step = max(1, PART_BYTES * rows // dense.nbytes)
        starts, streams = range(0, rows, step), _streams()
        for first in range(0, len(starts), len(streams)):
            parts = {}
            for start, stream in zip(starts[first:], streams, strict=False):
                with mx.stream(stream):
                    parts[start] = self._rows(slice(start, start + step))
            mx.eval(dense, list(parts.values()))
            for start, part in parts.items():
                dense[start : start + step] = part
        return dense

    def _rows(self, index: Index) -> mx.array:
        biases = self.get("biases")
        biases = None if biases is None else biases[index]
        return dequantize_fp32(self.weight[index], self.scales[index], biases, **self._quantization())

    def _multiply(self, x: mx.array) -> mx.array:
        x = fp32(x)
        if self.get("_dense_of") is self.weight:
            return product(x, self._dense)
        if x.size // x.shape[-1] > QUANTIZED_ROWS:
            return tiled_product(x, self.weight.shape[0], self._rows)
        biases = self.get("biases")
        return mx.quantized_matmul(
            x, self.weight, self.scales, biases, transpose=True, **self._quantization()
        )

    def _quantization(self) -> dict[str, Any]:
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}


class _Linear(_Matrix):
    def __call__(self, x: mx.array) -> mx.array:
        """x (..., in) -> (..., out)."""
        y = self._multiply(x)
        return y + self.bias if "bias" in self else y


class _Embedding(_Matrix):
    def __call__(self, ids: mx.array) -> mx.array:
        """Token ids (B, L) -> (B, L, hidden)."""
        return self._rows(ids)

    def as_linear(self, x: mx.array) -> mx.array:
        """The tied output head: x (..., hidden) -> (..., V)."""
        return self._multiply(x)


class _Experts(_Matrix):
    """Multiplies expert by expert where each has many input rows, otherwise as the base class does."""

    def __call__(self, x: mx.array, experts: mx.array, sorted_indices: bool = False) -> mx.array:
        """x (M, 1, in), experts (M,) -> (M, 1, out)."""
        x = fp32(x)
        runs = self._runs(experts)
        if not runs:
            return super().__call__(x, experts, sorted_indices)
        return mx.concatenate([product(x[start:stop], self._rows(expert)) for expert, start, stop in runs])

    def _runs(self, experts: mx.array) -> list[tuple[int, int, int]]:
        """(expert, first row, end) of neighbouring rows of one expert; empty where gathering is as fast."""
        if self._is_gathered(experts.size):
            return []
        try:
            chosen: list[int] = experts.tolist()  # type: ignore[assignment]
        except ValueError:  # mx.compile is tracing: the experts are not known yet
            return []
        ends = [i for i in range(1, len(chosen)) if chosen[i] != chosen[i - 1]] + [len(chosen)]
        return [(chosen[start], start, stop) for start, stop in zip([0, *ends], ends, strict=False)]

    def _is_gathered(self, rows: int) -> bool:
        """Whether MLX's gathered product is as fast for so many input rows."""
        return rows < ROWS_PER_EXPERT * self.weight.shape[0]


class CpuLinear(_Linear, _Plain, nn.Linear):
    """nn.Linear, its 16-bit matrix multiplied in fp32."""


class CpuQuantizedLinear(_Linear, _Quantized, nn.QuantizedLinear):
    """nn.QuantizedLinear, multiplied in fp32."""


class CpuEmbedding(_Embedding, _Plain, nn.Embedding):
    """nn.Embedding, its 16-bit matrix looked up and multiplied in fp32."""


class CpuQuantizedEmbedding(_Embedding, _Quantized, nn.QuantizedEmbedding):
    """nn.QuantizedEmbedding, looked up and multiplied in fp32."""


class CpuSwitchLinear(_Experts, _Plain, SwitchLinear):
    """SwitchLinear, its 16-bit matrices multiplied in fp32."""

    def _is_gathered(self, rows: int) -> bool:
        return self.weight.dtype == mx.float32 and super()._is_gathered(rows)


class CpuQuantizedSwitchLinear(_Experts, _Quantized, QuantizedSwitchLinear):
    """QuantizedSwitchLinear, multiplied in fp32."""


CPU_LAYERS: dict[type, type[_Matrix]] = {
    nn.Linear: CpuLinear,
    nn.Embedding: CpuEmbedding,
    nn.QuantizedLinear: CpuQuantizedLinear,
    nn.QuantizedEmbedding: CpuQuantizedEmbedding,
    SwitchLinear: CpuSwitchLinear,
    QuantizedSwitchLinear: CpuQuantizedSwitchLinear,
}
"""The layer that replaces a layer of exactly this type."""
