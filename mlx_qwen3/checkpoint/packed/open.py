"""Finds the packed matrices among the tensors of a checkpoint, and loads those that MLX can hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from mlx_qwen3.checkpoint.packed.fp8 import SCALES, STORED, ScaledMatrix
from mlx_qwen3.checkpoint.packed.integers import LEAVES, IntegerMatrix
from mlx_qwen3.checkpoint.packed.matrix import PackedMatrix, PartReader
from mlx_qwen3.checkpoint.packed.stored_rows import read_stored_rows
from mlx_qwen3.checkpoint.safetensors_files import few
from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.checkpoint.validation import build_model, parameter_shapes, stacked_name
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import ModelConfig, Quantization

# Scales of activations and of KV caches: this package quantizes neither by them.
UNUSED = re.compile(r".*\.(input_scale|input_zero_point|input_global_scale|activation_scale|[kqv]_scale|"
                    r"output_scale|weight_shape)")  # fmt: skip


@dataclass(frozen=True)
class PackedCheckpoint:
    """The tensors of a checkpoint, its packed matrices apart.

    Attributes:
        matrices: The packed matrices, by the names that they have unpacked.
        plain: The other tensors.
    """

    matrices: Mapping[str, PackedMatrix]
    plain: Mapping[str, StoredTensor]

    @property
    def unpacked(self) -> dict[str, StoredTensor]:
        """All tensors as if they were stored unpacked, to compare names and shapes with the model's."""
        return {
            **self.plain,
            **{
                name: StoredTensor(
                    name, matrix.main.file, matrix.shape, "BF16", matrix.main.offset, matrix.num_bytes
                )
                for name, matrix in self.matrices.items()
            },
        }


def find_packed(folder: Path, config: ModelConfig, stored: Mapping[str, StoredTensor]) -> PackedCheckpoint:
    """The packed matrices of `stored`, and the rest. To be called after `check_counts`.

    Raises CheckpointError for parts that do not belong together.
    """
    packing = config.packing
    assert packing is not None
    shapes = matrix_shapes(config)
    parts: dict[str, dict[str, StoredTensor]] = {}
    plain: dict[str, StoredTensor] = {}
    leaves = {"weight", *SCALES, *(leaf for names in LEAVES.values() for leaf in names if leaf)}
    for name, tensor in stored.items():
        path, _, leaf = name.rpartition(".")
        if leaf in leaves:
            parts.setdefault(f"{path}.weight", {})[leaf] = tensor
        elif not UNUSED.fullmatch(name):
            plain[name] = tensor
    matrices: dict[str, PackedMatrix] = {}
    for name, of_matrix in parts.items():
        if set(of_matrix) == {"weight"} and of_matrix["weight"].dtype not in STORED:
            plain[name] = of_matrix["weight"]
            continue
        if (shape := shapes.get(name)) is None:
            part = next(iter(of_matrix.values()))
            raise CheckpointError(
                f"{folder} holds unexpected {few([part.name])}; config.json belongs to other weights, or the "
                "model has parts that this package does not run"
            )
        matrices[name] = _matrix(name, shape, of_matrix, config)
    if not matrices:
        raise CheckpointError(
            f"{folder}: config.json says that the weights are quantized with {packing.method}, but none is; "
            "config.json and weights do not belong together"
        )
    return PackedCheckpoint(matrices, plain)


def matrix_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """The shapes (out, in) of all matrices of the model by name, experts one by one."""
    model = build_model(replace(config, quantization=None))
    result: dict[str, tuple[int, int]] = {}
    for name, (shape, _) in parameter_shapes(model, mx.float32).items():
        if len(shape) == 2:
            result[name] = (shape[0], shape[1])
        elif len(shape) == 3:
            for index in range(shape[0]):
                result[name.replace(".switch_mlp.", f".experts.{index}.")] = (shape[1], shape[2])
    return result


def _matrix(
    name: str, shape: tuple[int, int], parts: dict[str, StoredTensor], config: ModelConfig
) -> PackedMatrix:
    packing = config.packing
    assert packing is not None
    if "weight" in parts and packing.method in ("fp8", "compressed-tensors"):
        if not any(leaf in parts for leaf in SCALES):
            scale = SCALES[packing.method != "fp8"]
            raise CheckpointError(f"{parts['weight'].file}: {name} lacks its {scale}; download it again")
        if parts["weight"].dtype not in STORED:
            raise CheckpointError(
                f"{parts['weight'].file}: {name} has scales, but is stored as {parts['weight'].dtype}, not "
                f"as {STORED[0]}; config.json and weights do not belong together"
            )
        _refuse_others(parts, ("weight", next(leaf for leaf in SCALES if leaf in parts)), packing.method)
        return ScaledMatrix.of(name, shape, parts, packing.block)
    if packing.method not in LEAVES:
        raise CheckpointError(
            f"{next(iter(parts.values())).file}: {name} is stored as {few(parts)}, which is not how "
            f"{packing.method} stores it; config.json and weights do not belong together"
        )
    _refuse_others(parts, LEAVES[packing.method], packing.method)
    return IntegerMatrix.of(name, shape, parts, packing)


def _refuse_others(parts: Mapping[str, StoredTensor], leaves: Collection[str], method: str) -> None:
    """Raise CheckpointError for a part that does not belong to those of `method`."""
    for leaf, part in parts.items():
        if leaf not in leaves:
            raise CheckpointError(
                f"{part.file} holds unexpected {few([part.name])} beside the parts of {method}; "
                "config.json and weights do not belong together"
            )


def mlx_quantization(packed: PackedCheckpoint, name: str) -> Quantization:
    """How MLX can hold all packed matrices as they are; the layers that differ from most are overrides.

    name: of the checkpoint, for the message. Raises CheckpointError if there is one that MLX cannot hold.
    """
    layers: dict[str, Quantization] = {}
    for matrix in packed.matrices.values():
        quantization = matrix.quantization
        path = stacked_name(matrix.name).rpartition(".")[0]
        if quantization is None or layers.setdefault(path, quantization) != quantization:
            raise CheckpointError(
                f"{name} is stored in a way that MLX cannot run as it is ({few([matrix.name])}); convert it "
                f"first: mlx-qwen3 convert {name}"
            )
    (default, _), *_ = Counter((layer.bits, layer.group_size) for layer in layers.values()).most_common()
    overrides = {path: layer for path, layer in layers.items() if (layer.bits, layer.group_size) != default}
    return Quantization(*default, overrides=overrides)


def as_mlx_stores_it(packed: PackedCheckpoint, config: ModelConfig) -> dict[str, StoredTensor]:
    """All tensors as an MLX checkpoint would have them, to plan and check a model that is loaded directly."""
    result = dict(packed.plain)
    for name, matrix in packed.matrices.items():
        path = name.rpartition(".")[0]
        layer = _layer(config, name)
        outputs, inputs = matrix.shape
        kind = "BF16" if matrix.dtype == mx.bfloat16 else "F16"
        words, groups = inputs * layer.bits // 32, inputs // layer.group_size
        weight = replace(matrix.main, name=name, shape=(outputs, words), dtype="U32")
        result[name] = replace(weight, num_bytes=outputs * words * 4)
        for leaf in ("scales", "biases"):
            result[f"{path}.{leaf}"] = replace(
                weight,
                name=f"{path}.{leaf}",
                shape=(outputs, groups),
                dtype=kind,
                num_bytes=outputs * groups * 2,
            )
    return result


def mlx_weights(packed: PackedCheckpoint, config: ModelConfig) -> Iterator[tuple[str, mx.array]]:
    """Names and arrays of all packed matrices as MLX stores them, one after another.

    Raises CheckpointError if they cannot be read.
    """
    reader = PartReader(read_stored_rows)
    for name, matrix in packed.matrices.items():
        path = name.rpartition(".")[0]
        layer = _layer(config, name)
        words, *scales = matrix.mlx_rows(reader, 0, matrix.shape[0], layer)
        arrays = [words, *(part.astype(matrix.dtype) for part in scales)]
        mx.eval(arrays)
        yield from zip((name, f"{path}.scales", f"{path}.biases"), arrays, strict=True)


def _layer(config: ModelConfig, name: str) -> Quantization:
    """The quantization of the matrix `name`."""
    assert config.quantization is not None
    layer = config.quantization.for_layer(stacked_name(name).rpartition(".")[0])
    assert layer is not None
    return layer
