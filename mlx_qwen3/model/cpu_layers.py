"""Layers that hold a matrix, as a CPU computes them fast: in fp32, whatever the matrix is stored in.

`prepare` puts each in place of the layer it subclasses, which has the same parameters. A layer combines how
its matrix is stored (`_Plain`, `_Quantized`) with what it is used for (`_Linear`, `_Embedding`, `_Experts`).
The matrix stays as it is stored. On Linux kernels multiply with it (backend/stored_matrix.py). On a Mac's CPU
it is converted to fp32 for Accelerate, a tile at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.backend.device import eval_unless_traced
from mlx_qwen3.backend.matmul import dequantize_fp32, fp32, stored_product, tiled_product
from mlx_qwen3.backend.switches import has_kernels
from mlx_qwen3.model.mlp import QuantizedSwitchLinear, SwitchLinear

if TYPE_CHECKING:
    from mlx_qwen3.backend.stored_matrix import Part, StoredMatrix

# Up to this many input rows MLX's quantized product beats dequantizing the matrix first.
QUANTIZED_ROWS = 2
# From this many input rows per expert on, one BLAS product per expert beats MLX's gathered product.
ROWS_PER_EXPERT = 4

Index = slice | mx.array | int
"""Selects output rows of a matrix, or one expert's matrix."""


class _Matrix(nn.Module):
    """A matrix (out, in), or one per expert, multiplied in fp32 however it is stored."""

    weight: mx.array

    def stored(self) -> StoredMatrix | None:
        """The matrix for the kernels; None where there are none, or while MLX is tracing."""
        arrays = tuple(self.get(name) for name in ("weight", "scales", "biases"))
        known: tuple[tuple[Any, ...], StoredMatrix] | None = self.__dict__.get("_stored")
        if known is not None and all(a is b for a, b in zip(known[0], arrays, strict=True)):
            return known[1]
        if not has_kernels() or not eval_unless_traced(*(a for a in arrays if a is not None)):
            return None
        from mlx_qwen3.backend.stored_matrix import StoredMatrix

        stored = StoredMatrix(*arrays, **self._quantization())
        object.__setattr__(self, "_stored", (arrays, stored))
        return stored

    def _quantization(self) -> dict[str, Any]:
        """The keyword arguments of `mx.dequantize`; empty for a plain matrix."""
        return {}

    def _rows(self, index: Index) -> mx.array:
        """These rows in fp32."""
        raise NotImplementedError

    def _multiply(self, x: mx.array) -> mx.array:
        """x (..., in) -> (..., out), in fp32."""
        x = fp32(x)
        matrix = self.stored()
        if matrix is None:
            return self._by_mlx(x)
        rows = x.reshape(-1, x.shape[-1])
        y = stored_product(rows, matrix, self._by_mlx, weight=self._trained())
        return y.reshape(*x.shape[:-1], -1)

    def _by_mlx(self, x: mx.array, weight: mx.array | None = None) -> mx.array:
        """`_multiply` by MLX's operations. weight: in place of the layer's own."""
        raise NotImplementedError

    def _trained(self) -> mx.array | None:
        """The weight, if gradients of it may be asked for."""
        return None


class _Plain(_Matrix):
    """A matrix stored in 16 bits or in fp32."""

    def _rows(self, index: Index) -> mx.array:
        return self.weight[index].astype(mx.float32)

    def _by_mlx(self, x: mx.array, weight: mx.array | None = None) -> mx.array:
        if weight is not None:
            return x @ fp32(weight).T
        return tiled_product(x, self.weight.shape[0], self._rows)

    def _trained(self) -> mx.array | None:
        return None if "weight" in self._no_grad else self.weight


class _Quantized(_Matrix):
    """A quantized matrix."""

    scales: mx.array
    bits: int
    group_size: int
    mode: str

    def _rows(self, index: Index) -> mx.array:
        biases = self.get("biases")
        biases = None if biases is None else biases[index]
        return dequantize_fp32(self.weight[index], self.scales[index], biases, **self._quantization())

    def _by_mlx(self, x: mx.array, weight: mx.array | None = None) -> mx.array:  # noqa: ARG002
        if x.size // x.shape[-1] > QUANTIZED_ROWS:
            return tiled_product(x, self.weight.shape[0], self._rows)
        biases = self.get("biases")
        scales, biases = fp32(self.scales), None if biases is None else fp32(biases)
        return mx.quantized_matmul(x, self.weight, scales, biases, transpose=True, **self._quantization())

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
    """Multiplies with the matrix of one expert after the other."""

    def __call__(self, x: mx.array, experts: mx.array, sorted_indices: bool = False) -> mx.array:
        """x (M, 1, in), experts (M,) -> (M, 1, out)."""
        x = fp32(x)
        matrix = self.stored()
        if matrix is None or not eval_unless_traced(experts):
            return self._gathered(x, experts, sorted_indices)
        order = None if sorted_indices else mx.argsort(experts)
        rows = x[:, 0] if order is None else x[order, 0]
        chosen = experts if order is None else experts[order]
        y = stored_product(rows, matrix, self._by_mlx, self._parts(chosen))
        return (y if order is None else y[mx.argsort(order)])[:, None]

    def _parts(self, experts: mx.array) -> list[Part]:
        """Neighbouring rows of one expert, and where its matrix is."""
        from mlx_qwen3.backend.stored_matrix import Part

        chosen: list[int] = experts.tolist()  # type: ignore[assignment]
        outputs = self.weight.shape[1]
        ends = [i for i in range(1, len(chosen)) if chosen[i] != chosen[i - 1]] + [len(chosen)]
        spans = zip([0, *ends], ends, strict=False)
        return [Part(chosen[start] * outputs, outputs, start, stop) for start, stop in spans]

    def _gathered(self, x: mx.array, experts: mx.array, sorted_indices: bool) -> mx.array:
        """The product without kernels: expert by expert where each has many rows, or gathered by MLX."""
        if experts.size < ROWS_PER_EXPERT * self.weight.shape[0] or not eval_unless_traced(experts):
            return self._gathered_by_mlx(x, experts, sorted_indices)
        outputs = [
            x[part.start : part.stop] @ self._rows(part.first // part.outputs).T
            for part in self._parts(experts)
        ]
        return mx.concatenate(outputs)

    def _gathered_by_mlx(self, x: mx.array, experts: mx.array, sorted_indices: bool) -> mx.array:
        raise NotImplementedError


class CpuLinear(_Linear, _Plain, nn.Linear):
    """nn.Linear, its matrix multiplied in fp32."""


class CpuQuantizedLinear(_Linear, _Quantized, nn.QuantizedLinear):
    """nn.QuantizedLinear, multiplied in fp32."""


class CpuEmbedding(_Embedding, _Plain, nn.Embedding):
    """nn.Embedding, its matrix looked up and multiplied in fp32."""


class CpuQuantizedEmbedding(_Embedding, _Quantized, nn.QuantizedEmbedding):
    """nn.QuantizedEmbedding, looked up and multiplied in fp32."""


class CpuSwitchLinear(_Experts, _Plain, SwitchLinear):
    """SwitchLinear, its matrices multiplied in fp32."""

    def _gathered_by_mlx(self, x: mx.array, experts: mx.array, sorted_indices: bool) -> mx.array:
        weight = fp32(self.weight).swapaxes(-1, -2)
        return mx.gather_mm(x, weight, rhs_indices=experts, sorted_indices=sorted_indices)


class CpuQuantizedSwitchLinear(_Experts, _Quantized, QuantizedSwitchLinear):
    """QuantizedSwitchLinear, multiplied in fp32."""

    def _gathered_by_mlx(self, x: mx.array, experts: mx.array, sorted_indices: bool) -> mx.array:
        scales, biases = fp32(self.scales), None if self.biases is None else fp32(self.biases)
        return mx.gather_qmm(
            x,
            self.weight,
            scales,
            biases,
            rhs_indices=experts,
            transpose=True,
            sorted_indices=sorted_indices,
            **self._quantization(),
        )


CPU_LAYERS: dict[type, type[_Matrix]] = {
    nn.Linear: CpuLinear,
    nn.Embedding: CpuEmbedding,
    nn.QuantizedLinear: CpuQuantizedLinear,
    nn.QuantizedEmbedding: CpuQuantizedEmbedding,
    SwitchLinear: CpuSwitchLinear,
    QuantizedSwitchLinear: CpuQuantizedSwitchLinear,
}
"""The layer that replaces a layer of exactly this type."""
