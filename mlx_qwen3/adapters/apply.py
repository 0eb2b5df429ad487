"""Puts an adapter on a loaded model, beside the weights, which stay as they are."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.adapters.adapter import Adapter, LowRank
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.lora_experts import LoRAExperts
from mlx_qwen3.model.mlp import QuantizedSwitchLinear, SwitchLinear
from mlx_qwen3.model.qwen3 import Model

NORM_ROWS = 1024  # rows of a matrix that are dequantized at once, to measure their length


class AdaptedLinear(nn.Module):
    """A linear layer with a low-rank update: factor * (W x + scale * B A x).

    factor: of each output, so that the row has DoRA's magnitude; None for LoRA.
    """

    def __init__(self, linear: nn.Module, update: LowRank):
        super().__init__()
        self.linear = linear
        self.lora_a = mx.contiguous(update.a.T)  # (in, rank)
        self.lora_b = mx.contiguous((update.scale * update.b).T)  # (rank, out)
        self.factor = None if update.magnitude is None else _factor(linear, update)
        self.freeze()

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., in) -> (..., out)."""
        y = self.linear(x)
        y = y + ((x @ self.lora_a) @ self.lora_b).astype(y.dtype)
        return y if self.factor is None else (self.factor * y).astype(y.dtype)


def add_adapter(model: Model, adapter: Adapter, name: str) -> None:
    """Add the updates of `adapter` to the layers of `model`, for good. The weights are not copied.

    name: what the user calls the model. Raises CheckpointError if the adapter is for another model.
    """
    for path, adapted in adapted_modules(model, adapter, name).items():
        _replace(model, path, adapted)
    if model._make_step is not None:  # the step was of the layers before
        model.use_step(model._make_step)


def adapted_modules(model: Model, adapter: Adapter, name: str) -> dict[str, nn.Module]:
    """By path, what stands for modules of `model` while the adapter is in use. They share its weights.

    name: what the user calls the model. Raises CheckpointError if the adapter is for another model.
    """
    modules = dict(model.named_modules())
    adapter.check(matrix_shapes(modules), name)
    result = {}
    for path, update in adapter.updates.items():
        module = modules[path]
        if isinstance(module, SwitchLinear | QuantizedSwitchLinear):
            if update.magnitude is not None:
                raise CheckpointError(
                    f"{adapter.folder} has magnitudes for experts ({path}), which DoRA has not"
                )
            adapted: nn.Module = LoRAExperts(module, update.a.shape[1], 0.0, update.scale)
            adapted.lora_a, adapted.lora_b = update.a, update.b
        else:
            adapted = AdaptedLinear(module, update)
        mx.eval(adapted.parameters())
        result[path] = adapted
    return result


def matrix_shapes(modules: dict[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """The shapes of the matrices of linear layers and experts, by module path."""
    shapes = {}
    for path, module in modules.items():
        is_linear = isinstance(module, nn.Linear | nn.QuantizedLinear)
        if is_linear or isinstance(module, SwitchLinear | QuantizedSwitchLinear):
            *rows, width = module.weight.shape
            is_packed = module.weight.dtype == mx.uint32
            shapes[path] = (*rows, width * 32 // module.bits if is_packed else width)
    return shapes


def _factor(linear: nn.Module, update: LowRank) -> mx.array:
    """DoRA's magnitude of each row / its length with the update: (out,)."""
    assert update.magnitude is not None
    lengths = []
    for start in range(0, update.b.shape[0], NORM_ROWS):
        rows = slice(start, start + NORM_ROWS)
        weight = _rows(linear, rows).astype(mx.float32)
        weight = weight + update.scale * (update.b[rows].astype(mx.float32) @ update.a.astype(mx.float32))
        lengths.append(mx.linalg.norm(weight, axis=1))
        mx.eval(lengths)
    return update.magnitude.astype(mx.float32) / mx.concatenate(lengths)


def _rows(linear: nn.Module, rows: slice) -> mx.array:
    """Rows of a layer's matrix as numbers."""
    if linear.get("scales") is None:
        weight: mx.array = linear.weight[rows]
        return weight
    biases = linear.get("biases")
    return mx.dequantize(
        linear.weight[rows],
        linear.scales[rows],
        None if biases is None else biases[rows],
        group_size=linear.group_size,
        bits=linear.bits,
        mode=linear.mode,
    )


def _replace(model: Model, path: str, module: nn.Module) -> None:
    parent: Any = model
    *parents, leaf = path.split(".")
    for key in parents:
        parent = parent[int(key)] if key.isdigit() else parent[key]
    parent[leaf] = module
