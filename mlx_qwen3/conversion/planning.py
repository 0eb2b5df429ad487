"""Plans what a conversion reads and writes: names, shapes, bytes, files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import mlx.core as mx

from mlx_qwen3.checkpoint.validation import build_model, parameter_shapes
from mlx_qwen3.conversion.calibration import Calibration
from mlx_qwen3.conversion.recipes import Choice, Recipe, choice_of
from mlx_qwen3.conversion.source.original import SourceCheckpoint
from mlx_qwen3.conversion.source.packed import PackedTensor
from mlx_qwen3.conversion.source.tensors import SourceTensor, parameter_tensors
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import ModelConfig, Quantization


@dataclass(frozen=True)
class OutputTensor:
    """A tensor of the new checkpoint."""

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.size


@dataclass(frozen=True)
class ConversionStep:
    """Converts one parameter of the model: read, cast to `dtype`, and quantize."""

    name: str
    sources: tuple[SourceTensor, ...]  # one tensor, or one for each expert, to be stacked
    dtype: mx.Dtype
    quantization: Quantization | None
    outputs: tuple[OutputTensor, ...]  # one tensor, or weight, scales and (affine) biases
    searched: bool = False  # whether scales and biases are searched for
    repacked: bool = False  # whether the source's own numbers and scales are kept, in MLX's order

    @property
    def num_parameters(self) -> int:
        return sum(source.size for source in self.sources)

    @property
    def source_bytes(self) -> int:
        return sum(source.num_bytes for source in self.sources)

    @property
    def output_bytes(self) -> int:
        return sum(output.num_bytes for output in self.outputs)


@dataclass(frozen=True)
class ConversionPlan:
    """All that a conversion does. Sizes are bytes of weights."""

    source: SourceCheckpoint
    config: ModelConfig  # of the new checkpoint
    recipe: Recipe
    shards: tuple[tuple[ConversionStep, ...], ...]  # the steps of each file
    calibration: Calibration | None = None  # the text by which errors are weighted

    @property
    def num_files(self) -> int:
        return len(self.shards)

    @property
    def steps(self) -> list[ConversionStep]:
        return [step for shard in self.shards for step in shard]

    @property
    def total_size(self) -> int:
        return sum(step.output_bytes for step in self.steps)

    @property
    def source_size(self) -> int:
        return sum(step.source_bytes for step in self.steps)

    @property
    def num_parameters(self) -> int:
        return sum(step.num_parameters for step in self.steps)

    @property
    def bits_per_weight(self) -> float:
        return self.total_size * 8 / self.num_parameters

    def shard_name(self, index: int) -> str:
        """The file name of shard `index`, as on the hub."""
        if len(self.shards) == 1:
            return "model.safetensors"
        return f"model-{index + 1:05d}-of-{len(self.shards):05d}.safetensors"


def make_plan(
    source: SourceCheckpoint,
    quantization: Quantization | None,
    recipe: Recipe,
    dtype: mx.Dtype | None,
    max_shard_bytes: int,
    dequantize: bool = False,
    calibration: Calibration | None = None,
) -> ConversionPlan:
    """Plan the conversion of `source`.

    quantization: the default in the new config.json, which the choices of `recipe` override; None for
    unquantized weights. dtype: of what is not quantized; None keeps that of each tensor.
    Raises ConversionError unless the source is quantized exactly if `dequantize` is set.
    """
    _check_source(source, dequantize)
    model = build_model(replace(source.config, quantization=None))
    quantizable = {path for path, module in model.named_modules() if hasattr(module, "to_quantized")}
    choice = choice_of(recipe, quantization, source.config) if quantization else None
    steps = [
        _step(
            name,
            parameter_tensors(name, source.tensors, source.config.num_experts),
            choice if _module_path(name) in quantizable else None,
            dtype,
            recipe.searched,
        )
        for name in parameter_shapes(model, mx.float32)
    ]
    if quantization is not None:
        quantization = replace(quantization, overrides=_overrides(steps, quantization))
    config = replace(source.config, quantization=quantization, packing=None)
    if calibration is not None:  # a tied embedding is the output head too, whose inputs are known last
        steps.sort(key=lambda step: step.name == "model.embed_tokens.weight")
    return ConversionPlan(source, config, recipe, _shards(steps, max_shard_bytes), calibration)


def _check_source(source: SourceCheckpoint, dequantize: bool) -> None:
    quantization = source.config.quantization
    if quantization is not None and not dequantize and source.adapter is None:
        raise ConversionError(
            f"{source.path} is quantized already ({quantization.bits} bits); convert its original, or "
            "dequantize it",
            [{"dequantize": True}],
        )
    if quantization is None and source.config.packing is None and dequantize:
        raise ConversionError(f"{source.path} is not quantized; there is nothing to dequantize")


def _step(
    name: str,
    sources: tuple[SourceTensor, ...],
    choice: Choice | None,
    dtype: mx.Dtype | None,
    searched: bool,
) -> ConversionStep:
    path = _module_path(name)
    shape = sources[0].shape if len(sources) == 1 else (len(sources), *sources[0].shape)
    quantization = choice(path, shape[-1]) if choice else None
    dtype = dtype or sources[0].dtype
    if quantization is None:
        return ConversionStep(name, sources, dtype, None, (OutputTensor(name, shape, dtype),))
    outputs = _quantized_outputs(path, shape, dtype, quantization)
    # Rounding the numbers of AWQ or GPTQ anew, to the same bits, would only lose.
    repacked = all(isinstance(source, PackedTensor) and source.can_be(quantization) for source in sources)
    return ConversionStep(name, sources, dtype, quantization, outputs, searched and not repacked, repacked)


def _module_path(name: str) -> str:
    return name.rpartition(".")[0]


def _quantized_outputs(
    path: str, shape: tuple[int, ...], dtype: mx.Dtype, quantization: Quantization
) -> tuple[OutputTensor, ...]:
    """The tensors that `mx.quantize` returns for a matrix."""
    *rows, width = shape
    packed = (*rows, width * quantization.bits // 32)
    groups = (*rows, width // quantization.group_size)
    weight = OutputTensor(f"{path}.weight", packed, mx.uint32)
    if quantization.mode != "affine":
        return weight, OutputTensor(f"{path}.scales", groups, mx.uint8)
    return (
        weight,
        OutputTensor(f"{path}.scales", groups, dtype),
        OutputTensor(f"{path}.biases", groups, dtype),
    )


def _overrides(steps: list[ConversionStep], default: Quantization) -> dict[str, Quantization | None]:
    """Layers quantized otherwise than `default`. Unquantized layers have no scales, so none is listed."""
    layers = {_module_path(step.name): step.quantization for step in steps if step.quantization}
    return {path: layer for path, layer in layers.items() if layer != default}


def _shards(steps: list[ConversionStep], max_bytes: int) -> tuple[tuple[ConversionStep, ...], ...]:
    """Divide the steps among files of at most `max_bytes`; the outputs of one step stay together."""
    shards: list[list[ConversionStep]] = []
    size = max_bytes
    for step in steps:
        if size + step.output_bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(step)
        size += step.output_bytes
    return tuple(tuple(shard) for shard in shards)
