"""The tensors a model needs, by name, shape and kind, and what is wrong with those there are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_qwen3.checkpoint.safetensors_files import DTYPE_NAMES, StoredTensor, few
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import ModelConfig, Quantization
from mlx_qwen3.model.qwen3 import EXPERT_KEY, Model

FLOATS = ("BF16", "F16", "F32")
Expected = dict[str, tuple[tuple[int, ...], mx.Dtype]]


def expected_tensors(config: ModelConfig, dtype: mx.Dtype = mx.bfloat16) -> Expected:
    """Shape and dtype of every tensor of a checkpoint with this config, in MLX's form.

    dtype: what stands for the floating-point tensors, of which a checkpoint chooses the format.
    """
    return parameters(build_model(config), dtype)


def parameters(model: nn.Module, dtype: mx.Dtype) -> Expected:
    """Shape and dtype of every parameter of `model`, which stays unevaluated."""
    return {
        name: (value.shape, dtype if mx.issubdtype(value.dtype, mx.floating) else value.dtype)
        for name, value in tree_flatten(model.parameters())
    }


def build_model(config: ModelConfig, stored: Mapping[str, StoredTensor] | None = None) -> Model:
    """The module tree of `config`, quantized as the config says. Its weights are never computed.

    stored: what the checkpoint holds; a layer without scales there is left unquantized.
    """
    model = Model(config)
    quantization = config.quantization
    if quantization is not None:
        quantized = None if stored is None else _quantized_layers(stored)
        nn.quantize(
            model, class_predicate=lambda path, module: _settings(path, module, quantization, quantized)
        )
    return model


def _settings(
    path: str, module: nn.Module, quantization: Quantization, quantized: Collection[str] | None
) -> dict[str, object] | bool:
    """How `nn.quantize` is to treat the module at `path`."""
    layer = quantization.for_layer(path)
    if not hasattr(module, "to_quantized") or layer is None:
        return False
    if quantized is not None and path not in quantized:
        return False
    if (width := module.weight.shape[-1]) % layer.group_size:
        if quantized is None:
            return False
        raise CheckpointError(
            f"config.json: {path} cannot be quantized in groups of {layer.group_size}, its rows have {width} "
            "values; config.json and weights do not belong together"
        )
    return layer.settings()


def _quantized_layers(stored: Mapping[str, StoredTensor]) -> set[str]:
    """Module paths of layers with scales or packed weights; those of experts as they are stacked."""
    layers = set()
    for name, tensor in stored.items():
        path, _, leaf = name.rpartition(".")
        if leaf == "scales" or (leaf == "weight" and tensor.dtype == "U32"):
            layers.add(stacked_name(name).rpartition(".")[0])
            layers.add(path)
    return layers


def stacked_name(name: str) -> str:
    """The name a per-expert tensor has once experts are stacked; any other name is returned as is."""
    match = EXPERT_KEY.fullmatch(name)
    return f"{match[1]}.switch_mlp.{match[3]}" if match else name


def check(folder: Path, model: Model, stored: Mapping[str, StoredTensor]) -> None:
    """Raise CheckpointError unless `stored` is exactly what `model` needs, stacked or per expert."""
    config = model.args
    if config.tie_word_embeddings:  # an output head beside a tied one is the same matrix again
        stored = {name: tensor for name, tensor in stored.items() if not name.startswith("lm_head.")}
    if config.quantization is None and (layers := _quantized_layers(stored)):
        raise CheckpointError(
            f"{folder}: {min(layers)} is quantized, but config.json has no `quantization` that says how; "
            "download config.json again"
        )
    expected = _as_stored(parameters(model, mx.float32), stored, config.num_experts)
    _refuse(folder, "lacks", [name for name in expected if name not in stored], len(expected))
    _refuse(folder, "holds unexpected", [name for name in stored if name not in expected], len(stored))
    for name, (shape, dtype) in expected.items():
        _check_tensor(stored[name], shape, dtype, config)


def _as_stored(expected: Expected, stored: Mapping[str, StoredTensor], num_experts: int) -> Expected:
    """`expected` with stacks of experts split up where the checkpoint stores them one by one."""
    per_expert = {stacked_name(name) for name in stored if EXPERT_KEY.fullmatch(name)}
    result: Expected = {}
    for name, (shape, dtype) in expected.items():
        if name in per_expert and name not in stored:
            for i in range(num_experts):
                result[name.replace(".switch_mlp.", f".experts.{i}.")] = (shape[1:], dtype)
        else:
            result[name] = (shape, dtype)
    return result


def _refuse(folder: Path, verb: str, names: list[str], total: int) -> None:
    if names:
        raise CheckpointError(
            f"{folder} {verb} {few(names)} ({len(names)} of {total} tensors); "
            "config.json and weights do not belong together or a file is missing; download them again"
        )


def _check_tensor(tensor: StoredTensor, shape: tuple[int, ...], dtype: mx.Dtype, config: ModelConfig) -> None:
    where = f"{tensor.file}: {tensor.name}"
    if tensor.shape != shape:
        layer = config.quantization.for_layer(tensor.name.rpartition(".")[0]) if config.quantization else None
        how = f" at {layer.bits} bits in groups of {layer.group_size}" if layer and dtype == mx.uint32 else ""
        raise CheckpointError(
            f"{where} has shape {list(tensor.shape)}, config.json asks for {list(shape)}{how}; "
            "config.json and weights do not belong together"
        )
    allowed = FLOATS if dtype == mx.float32 else (DTYPE_NAMES[dtype],)
    if tensor.dtype not in allowed:
        raise CheckpointError(
            f"{where} is stored as {tensor.dtype}, not as {' or '.join(allowed)}; "
            "use the bf16 checkpoint, or one converted to MLX"
        )
