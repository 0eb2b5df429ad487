"""Measures the inputs of a model's matrices on calibration text, with one layer in memory at a time.

For each matrix the second moments of its input are kept, E[x x^T] = M. An error E of the matrix then costs
tr(E M E^T) in its output. Only square blocks on the diagonal of M are kept, so that memory grows with the
width of a matrix and not with its square.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_qwen3.conversion.calibration import Calibration, batches
from mlx_qwen3.conversion.planning import ConversionPlan, ConversionStep
from mlx_qwen3.conversion.quantize.gptq import Moments, factorize
from mlx_qwen3.conversion.recipes import LAYER
from mlx_qwen3.conversion.source.chunks import read_chunks, refuse_not_finite, row_chunks
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.mlp import SwitchLinear
from mlx_qwen3.model.prepare import compute_dtype, prepare
from mlx_qwen3.model.qwen3 import TransformerBlock

BLOCK = 1024  # columns of a block of second moments

# Matrices that have the same input as another one, which is recorded.
SAME_INPUT = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}


class Activations:
    """Second moments for the steps of a plan, which are asked for in the order of the model's layers."""

    def __init__(self, plan: ConversionPlan, calibration: Calibration):
        """Embeds the calibration text. Raises CheckpointError if the embedding cannot be read."""
        self._config = plan.source.config
        self._steps = {step.name: step for step in plan.steps}
        self._is_tied = self._config.tie_word_embeddings
        embedding = self._steps["model.embed_tokens.weight"]
        self._hidden = [embed(embedding, ids) for ids in batches(calibration)]
        self._next_layer = 0
        self._recorders: dict[str, Recorder] = {}

    def recorder(self, step: ConversionStep) -> Recorder | None:
        """The recorder of the input of a step's matrix; None for an embedding alone and for norms."""
        path = step.name.rpartition(".")[0]
        if match := LAYER.fullmatch(path):
            self.advance(int(match[1]))
            parent, _, leaf = path.rpartition(".")
            return self._recorders.get(f"{parent}.{SAME_INPUT.get(leaf, leaf)}")
        if path == "lm_head" or (path == "model.embed_tokens" and self._is_tied):
            self.advance(self._config.num_hidden_layers)
            return self._recorders["head"]
        return None

    def advance(self, layer: int) -> None:
        """Run the layers up to `layer`, whose inputs are recorded; after the last comes the final norm."""
        while self._next_layer <= layer:
            if self._next_layer < self._config.num_hidden_layers:
                self._run_layer(self._next_layer, is_recorded=self._next_layer == layer)
            else:
                self._run_norm()
            self._next_layer += 1

    def _run_layer(self, index: int, is_recorded: bool) -> None:
        prefix = f"model.layers.{index}."
        block = load_block(self._config, index, self._steps)
        self._recorders = insert_recorders(block, prefix) if is_recorded else {}
        self._hidden = [_evaluated(block(x, "causal"), self._recorders) for x in self._hidden]

    def _run_norm(self) -> None:
        recorder = Recorder(nn.Identity())
        self._recorders = {"head": recorder}
        norm = self._steps["model.norm.weight"]
        self._hidden = [
            _evaluated(recorder(final_norm(self._config, norm, x)), self._recorders) for x in self._hidden
        ]


class Recorder(nn.Module):
    """Wraps a layer, and adds its inputs to their second moments."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self._sums: Moments = []
        self._count = 0

    def __call__(self, x: mx.array, *rest: Any) -> mx.array:
        rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
        blocks = [rows[:, start : start + BLOCK] for start in range(0, rows.shape[1], BLOCK)]
        products = [block.T @ block for block in blocks]
        self._sums = (
            [old + new for old, new in zip(self._sums, products, strict=True)] if self._sums else products
        )
        self._count += rows.shape[0]
        result: mx.array = self.layer(x, *rest)
        return result

    @property
    def moments(self) -> Moments:
        return [total / self._count for total in self._sums]

    @cached_property
    def factors(self) -> Moments:
        """The factors of the second moments, for `quantize_gptq`."""
        return factorize(self.moments)

    def evaluate(self) -> None:
        """Compute the sums now, so that MLX can free the inputs."""
        mx.eval(self._sums)


def insert_recorders(block: nn.Module, prefix: str) -> dict[str, Recorder]:
    """Wrap the matrices of `block` in recorders, which are returned by path; one for each input."""
    recorders = {}
    for path, module in list(block.named_modules()):
        parent, _, leaf = path.rpartition(".")
        if isinstance(module, nn.Linear | SwitchLinear) and leaf not in SAME_INPUT:
            recorder = recorders[prefix + path] = Recorder(module)
            submodule(block, parent)[leaf] = recorder
    return recorders


def submodule(module: nn.Module, path: str) -> nn.Module:
    """The module at the dotted `path` within `module`."""
    for name in path.split("."):
        module = module[name]
    return module


def load_block(config: ModelConfig, index: int, steps: dict[str, ConversionStep]) -> TransformerBlock:
    """Layer `index` with the source's weights, prepared for this device."""
    block = TransformerBlock(config, index)
    prefix = f"model.layers.{index}."
    weights = [
        (name.removeprefix(prefix), read_whole(step))
        for name, step in steps.items()
        if name.startswith(prefix)
    ]
    block.load_weights(weights)
    prepare(block)
    return block


def final_norm(config: ModelConfig, norm: ConversionStep, x: mx.array) -> mx.array:
    """The output of the last layer `x` (..., hidden) -> the input of the output head."""
    return mx.fast.rms_norm(x, read_whole(norm), config.rms_norm_eps)


def read_whole(step: ConversionStep) -> mx.array:
    """The parameter of `step` in the dtype that this device computes in. Raises CheckpointError."""
    chunks = [chunk for source in step.sources for chunk in read_chunks(source)]
    dtype = compute_dtype(chunks[0].dtype)
    rows = mx.concatenate([chunk.astype(dtype) for chunk in chunks])
    shape = step.sources[0].shape
    return rows.reshape(shape if len(step.sources) == 1 else (len(step.sources), *shape))


def embed(step: ConversionStep, ids: Any) -> mx.array:
    """ids (B, L) -> rows of the embedding (B, L, hidden). Reads it in chunks. Raises CheckpointError."""
    (source,) = step.sources
    result = np.zeros((*ids.shape, source.shape[-1]), np.float32)
    for first, count in row_chunks(source):
        inside = (ids >= first) & (ids < first + count)
        if inside.any():
            rows = source.read(first, count)[mx.array(ids[inside] - first)]
            refuse_not_finite(rows, source, source.dtype)
            result[inside] = np.array(rows.astype(mx.float32))
    return mx.array(result).astype(compute_dtype(source.dtype))


def _evaluated(x: mx.array, recorders: dict[str, Recorder]) -> mx.array:
    mx.eval(x)
    for recorder in recorders.values():
        recorder.evaluate()
    return x
