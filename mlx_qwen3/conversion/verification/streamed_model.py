"""A model whose matrices stay on the disk, read a few rows at a time as they are multiplied.

A checkpoint of any size and in any form runs in little memory this way, once over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_qwen3.checkpoint.validation import build_model
from mlx_qwen3.conversion.source.tensors import Source, parameter
from mlx_qwen3.conversion.workers import in_order
from mlx_qwen3.conversion.write.step import PRODUCT_CHUNKS, row_chunks
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.mlp import SwitchLinear
from mlx_qwen3.model.qwen3 import Model

OnBytes = Callable[[int], None]
"""Called with the bytes of weights that were read."""


def streamed_model(
    sources: Mapping[str, Source], config: ModelConfig, on_bytes: OnBytes | None = None
) -> Model:
    """The model with matrices that are read when they are used, and everything in fp32."""
    config = replace(config, quantization=None)
    model = build_model(config)
    for path, module in model.named_modules():
        kind = STREAMED.get(type(module))
        if kind is not None:
            source = parameter(f"{path}.weight", sources, config.num_experts)
            _replace(model, path, kind(source, on_bytes))
        elif isinstance(module, nn.RMSNorm):
            source = sources[f"{path}.weight"]
            module.weight = source.read(0, 1).reshape(-1).astype(mx.float32)
    return model


def _replace(model: Model, path: str, module: nn.Module) -> None:
    parent: Any = model
    *parents, name = path.split(".")
    for step in parents:
        parent = parent[int(step)] if step.isdigit() else parent[step]
    parent[name] = module


class _Streamed(nn.Module):
    """Holds where its matrix is, not the matrix."""

    def __init__(self, source: Source, on_bytes: OnBytes | None):
        super().__init__()
        self._source, self._on_bytes = source, on_bytes

    def _product(self, x: mx.array, first: int, count: int) -> mx.array:
        """x (..., in) times rows `first` to `first + count` of the matrix -> (..., count)."""

        def product(chunk: tuple[int, int]) -> tuple[int, mx.array]:
            piece = x @ self._source.read_fp32(*chunk).T
            mx.eval(piece)  # so that few chunks are in memory at a time
            return chunk[0] - first, piece

        chunks = row_chunks(self._source, first, count, PRODUCT_CHUNKS)
        result = mx.zeros((*x.shape[:-1], count))
        mx.eval(x, result)
        for start, piece in in_order(product, chunks):
            result[..., start : start + piece.shape[-1]] = piece
            mx.eval(result)  # put in place; joined at the end, all would be there twice
            if self._on_bytes is not None:
                self._on_bytes(self._source.num_bytes * piece.shape[-1] // self._source.num_rows)
        return result


class StreamedLinear(_Streamed):
    """nn.Linear without bias."""

    def __call__(self, x: mx.array) -> mx.array:
        return self._product(x, 0, self._source.num_rows)


class StreamedEmbedding(_Streamed):
    """nn.Embedding."""

    def __call__(self, ids: mx.array) -> mx.array:
        rows, places = np.unique(np.array(ids), return_inverse=True)
        matrix = mx.concatenate([self._source.read_fp32(int(row), 1) for row in rows])
        return matrix[mx.array(places.reshape(ids.shape))]

    def as_linear(self, x: mx.array) -> mx.array:
        return self._product(x, 0, self._source.num_rows)


class StreamedSwitchLinear(_Streamed):
    """SwitchLinear: one matrix an expert, of which only those asked for are read."""

    def __call__(self, x: mx.array, experts: mx.array, is_sorted: bool = False) -> mx.array:  # noqa: ARG002
        """x (M, 1, in), experts (M,) -> (M, 1, out)."""
        chosen = np.array(experts)
        rows = self._source.shape[1]
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
