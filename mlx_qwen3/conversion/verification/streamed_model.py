"""A model whose matrices stay on the disk and are read a few rows at a time as they are multiplied.

This way one pass of a checkpoint of any size and format takes little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.backend.matmul import multiply
from mlx_qwen3.checkpoint.validation import build_model
from mlx_qwen3.conversion.source.chunks import row_chunks
from mlx_qwen3.conversion.source.tensors import SourceTensor, parameter_tensor
from mlx_qwen3.conversion.workers import in_order
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.mlp import SwitchLinear
from mlx_qwen3.model.qwen3 import Model

OnBytes = Callable[[int], None]
"""Called with the bytes of weights that were read."""


def streamed_model(
    tensors: Mapping[str, SourceTensor], config: ModelConfig, on_bytes: OnBytes | None = None
) -> Model:
    """The model with these tensors, computed in fp32. Its matrices are read when they are used."""
    config = replace(config, quantization=None)
    model = build_model(config)
    for path, module in model.named_modules():
        streamed_class = STREAMED.get(type(module))
        if streamed_class is not None:
            tensor = parameter_tensor(f"{path}.weight", tensors, config.num_experts)
            _replace(model, path, streamed_class(tensor, on_bytes))
        elif isinstance(module, nn.RMSNorm):
            module.weight = tensors[f"{path}.weight"].read(0, 1).reshape(-1).astype(mx.float32)
    return model


def _replace(model: Model, path: str, module: nn.Module) -> None:
    parent: Any = model
    *parents, name = path.split(".")
    for key in parents:
        parent = parent[int(key)] if key.isdigit() else parent[key]
    parent[name] = module


class _Streamed(nn.Module):
    """A module that reads the matrix of its tensor whenever it needs it."""

    def __init__(self, tensor: SourceTensor, on_bytes: OnBytes | None):
        super().__init__()
        self._tensor, self._on_bytes = tensor, on_bytes

    def _product(self, x: mx.array, first: int, count: int) -> mx.array:
        """x (..., in) times rows `first` to `first + count` of the matrix -> (..., count)."""

        def product(chunk: tuple[int, int]) -> tuple[int, mx.array]:
            piece = multiply(x, self._tensor.read_fp32(*chunk).T)
            mx.eval(piece)  # here, so that only a few chunks are in memory
            return chunk[0] - first, piece

        # On a CPU larger chunks: BLAS rearranges `x` for each product.
        chunks = row_chunks(self._tensor, first, count, factor=4 if is_cpu() else 1)
        result = mx.zeros((*x.shape[:-1], count))
        mx.eval(x, result)
        for start, piece in in_order(product, chunks):
            result[..., start : start + piece.shape[-1]] = piece
            mx.eval(result)  # concatenating at the end would take twice the memory
            if self._on_bytes is not None:
                self._on_bytes(self._tensor.num_bytes * piece.shape[-1] // self._tensor.num_rows)
        return result


class StreamedLinear(_Streamed):
    """nn.Linear without bias."""

    def __call__(self, x: mx.array) -> mx.array:
        return self._product(x, 0, self._tensor.num_rows)


class StreamedEmbedding(_Streamed):
    """nn.Embedding."""

    def __call__(self, ids: mx.array) -> mx.array:
        rows, places = np.unique(np.array(ids), return_inverse=True)
        matrix = mx.concatenate([self._tensor.read_fp32(int(row), 1) for row in rows])
        return matrix[mx.array(places.reshape(ids.shape))]

    def as_linear(self, x: mx.array) -> mx.array:
        return self._product(x, 0, self._tensor.num_rows)


class StreamedSwitchLinear(_Streamed):
    """SwitchLinear: a matrix for each expert. Only those of the chosen experts are read."""

    def __call__(self, x: mx.array, experts: mx.array, sorted_indices: bool = False) -> mx.array:  # noqa: ARG002
        """x (M, 1, in), experts (M,) -> (M, 1, out)."""
        chosen = np.array(experts)
        rows = self._tensor.shape[1]
        result = mx.zeros((x.shape[0], 1, rows))
        for expert in np.unique(chosen).tolist():
            members = mx.array(np.flatnonzero(chosen == expert))
            result[members] = self._product(x[members], expert * rows, rows)
            mx.eval(result)
        return result


STREAMED: dict[type[nn.Module], type[_Streamed]] = {
    nn.Linear: StreamedLinear,
    nn.Embedding: StreamedEmbedding,
    SwitchLinear: StreamedSwitchLinear,
}
