"""Compares the tensors of a checkpoint with those its config asks for: names, shapes and dtypes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_qwen3.backend.safetensors_io import DTYPE_NAMES
from mlx_qwen3.checkpoint.safetensors_files import few
from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import ModelConfig, Quantization
from mlx_qwen3.model.qwen3 import EXPERT_KEY, Model

FLOATS = ("BF16", "F16", "F32")
MANY_EXPERTS = 10_000  # so many matrices may be missing and are counted one by one
ParameterShapes = dict[str, tuple[tuple[int, ...], mx.Dtype]]
"""Name -> (shape, dtype)."""


def expected_tensors(config: ModelConfig, dtype: mx.Dtype = mx.bfloat16) -> ParameterShapes:
    """The tensors of an MLX checkpoint with this config.

    Args:
        config: The model's config, with its quantization.
        dtype: Stands for the dtype of floating-point tensors, which a checkpoint is free to choose.

    Returns:
        Name -> (shape, dtype) of every tensor.
    """
    return parameter_shapes(build_model(config), dtype)


def parameter_shapes(model: nn.Module, dtype: mx.Dtype) -> ParameterShapes:
    """Shape and dtype of every parameter, with `dtype` for floating-point ones. Evaluates nothing."""
    return {
        name: (value.shape, dtype if mx.issubdtype(value.dtype, mx.floating) else value.dtype)
        for name, value in tree_flatten(model.parameters())
    }


def build_model(config: ModelConfig, stored: Mapping[str, StoredTensor] | None = None) -> Model:
    """The model of `config`, quantized as the config says. Its random weights are never evaluated.

    stored: The checkpoint's tensors; a layer without scales there stays unquantized.
    """
    model = Model(config)
    quantization = config.quantization
    if quantization is not None:
        quantized = None if stored is None else _quantized_layers(stored)

        def predicate(path: str, module: nn.Module) -> dict[str, object] | bool:
            return _quantize_arguments(path, module, quantization, quantized)

        nn.quantize(model, class_predicate=predicate)
    return model


def _quantize_arguments(
    path: str, module: nn.Module, quantization: Quantization, quantized: Collection[str] | None
) -> dict[str, object] | bool:
    """Arguments of `nn.quantize` for the module at `path`, or False to leave it unquantized.

    quantized: Paths of the layers that the checkpoint stores quantized; None if there is no checkpoint.
    """
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
    return layer.mlx_arguments()


def _quantized_layers(stored: Mapping[str, StoredTensor]) -> set[str]:
    """Paths of layers with scales or packed weights; for an expert its own path and its stack's."""
    layers = set()
    for name, tensor in stored.items():
        path, _, leaf = name.rpartition(".")
        if leaf == "scales" or (leaf == "weight" and tensor.dtype == "U32"):
            layers.add(stacked_name(name).rpartition(".")[0])
            layers.add(path)
    return layers


def stacked_name(name: str) -> str:
    """The name of the stack that a per-expert tensor becomes part of. Returns other names unchanged."""
    match = EXPERT_KEY.fullmatch(name)
    return f"{match[1]}.switch_mlp.{match[3]}" if match else name


def check_counts(folder: Path, config: ModelConfig, stored: Mapping[str, StoredTensor]) -> None:
    """Raise CheckpointError if the config asks for far more layers or experts than are stored.

    To be called before anything is built: `validate` names each missing tensor, which takes as long as the
    config asks for.
    """
    if config.num_hidden_layers > len(stored):
        raise CheckpointError(
            f"{folder}: config.json says num_hidden_layers {config.num_hidden_layers:,}, but the weights "
            f"hold {len(stored):,} tensors; config.json and weights do not belong together"
        )
    experts = Counter(stacked_name(name) for name in stored if EXPERT_KEY.fullmatch(name))
    if config.num_experts * len(experts) > MANY_EXPERTS + 2 * experts.total():
        raise CheckpointError(
            f"{folder}: config.json says num_experts {config.num_experts:,}, but the weights hold at most "
            f"{max(experts.values()):,} a layer; config.json and weights do not belong together"
        )


def validate(
    folder: Path,
    model: Model,
    stored: Mapping[str, StoredTensor],
    is_needed: Callable[[str], bool] | None = None,
) -> None:
    """Raise CheckpointError unless `stored` is exactly what `model` needs. Experts may be stacked or not.

    is_needed: Of a part of the model, tells which tensors it has; None is all.
    """
    config = model.args
    if config.tie_word_embeddings:  # a stored output head is a copy of the embedding: see tied_head.py
        stored = {name: tensor for name, tensor in stored.items() if not name.startswith("lm_head.")}
    if config.quantization is None and (layers := _quantized_layers(stored)):
        raise CheckpointError(
            f"{folder}: {min(layers)} is quantized, but config.json has no `quantization` that says how; "
            "download config.json again"
        )
    shapes = parameter_shapes(model, mx.float32)
    if is_needed is not None:
        shapes = {name: shape for name, shape in shapes.items() if is_needed(name)}
    expected = _split_stacks(shapes, stored, config.num_experts)
    _check_names(folder, expected, stored)
    for name, (shape, dtype) in expected.items():
        _validate_tensor(stored[name], shape, dtype, config)


def _split_stacks(
    expected: ParameterShapes, stored: Mapping[str, StoredTensor], num_experts: int
) -> ParameterShapes:
    """`expected` with a stack of experts split where the checkpoint stores each expert by itself."""
    per_expert = {stacked_name(name) for name in stored if EXPERT_KEY.fullmatch(name)}
    result: ParameterShapes = {}
    for name, (shape, dtype) in expected.items():
        if name in per_expert and name not in stored:
            for i in range(num_experts):
                result[name.replace(".switch_mlp.", f".experts.{i}.")] = (shape[1:], dtype)
        else:
            result[name] = (shape, dtype)
    return result


def _check_names(folder: Path, expected: Collection[str], stored: Collection[str]) -> None:
    """Raise CheckpointError unless the names are equal. A new download is advised only where it may help."""
    missing = [name for name in expected if name not in stored]
    unexpected = [name for name in stored if name not in expected]
    lacks = f"{folder} lacks {few(missing)} ({len(missing)} of {len(expected)} tensors)"
    holds = f"holds unexpected {few(unexpected)} ({len(unexpected)} of {len(stored)} tensors)"
    if missing and unexpected:
        raise CheckpointError(
            f"{lacks} and {holds}; config.json belongs to other weights, or they are stored in a way that "
            "this package does not read"
        )
    if missing == ["lm_head.weight"]:
        raise CheckpointError(
            f"{lacks}; a model without output head, such as an embedding model, writes no text"
        )
    if missing:
        raise CheckpointError(
            f"{lacks}; a file is missing, so download them again, or config.json belongs to other weights"
        )
    if unexpected:
        raise CheckpointError(
            f"{folder} {holds}; config.json belongs to other weights, or the model has parts that this "
            "package does not run"
        )


def _validate_tensor(
    tensor: StoredTensor, shape: tuple[int, ...], dtype: mx.Dtype, config: ModelConfig
) -> None:
    where = f"{tensor.file}: {few([tensor.name])}"
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
