"""What a conversion will read and write, known before it starts: names, shapes, bytes, files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import mlx.core as mx

from mlx_qwen3.checkpoint.validation import build_model, parameter_shapes
from mlx_qwen3.conversion.calibration import Calibration
from mlx_qwen3.conversion.recipes import Choice, Recipe, choice_of
from mlx_qwen3.conversion.source.open import Original
from mlx_qwen3.conversion.source.tensors import Source, parts_of
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import ModelConfig, Quantization

MAX_SHARD_BYTES = 5 * 10**9


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
class Step:
    """One parameter of the model on its way: read, cast to `dtype`, quantized if it is to be.

    sources: the tensor as stored, or those of all experts in order, which are stacked.
    searched: whether scales and offsets are searched for, where it is quantized.
    outputs: the tensor written, or for a quantized one its weight, scales and (affine) biases.
    """

    name: str
    sources: tuple[Source, ...]
    dtype: mx.Dtype
    quantization: Quantization | None
    outputs: tuple[OutputTensor, ...]
    searched: bool = False

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
class Plan:
    """A whole conversion. `shards` holds the steps of each file; sizes are bytes of weights.

    config: the new checkpoint's. calibration: the text that errors are weighed by, if any.
    """

    original: Original
    config: ModelConfig
    recipe: Recipe
    shards: tuple[tuple[Step, ...], ...]
    calibration: Calibration | None = None

    @property
    def num_files(self) -> int:
        return len(self.shards)

    @property
    def steps(self) -> list[Step]:
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
    original: Original,
    quantization: Quantization | None,
    recipe: Recipe,
    dtype: mx.Dtype | None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    dequantize: bool = False,
    calibration: Calibration | None = None,
) -> Plan:
    """Plan the conversion of `original`.

    quantization: what config.json will give as the default, with what `recipe` decides otherwise as
    overrides; None for none. dtype: the format of what is not quantized; None keeps each tensor's.
    dequantize: the original is quantized, and what is made of it is not. Raises ConversionError.
    """
    _check_quantization(original, dequantize)
    model = build_model(replace(original.config, quantization=None))
    quantizable = {path for path, module in model.named_modules() if hasattr(module, "to_quantized")}
    choice = choice_of(recipe, quantization, original.config) if quantization else None
    steps = [
        _step(
            name,
            parts_of(name, original.sources, original.config.num_experts),
            choice if name.rpartition(".")[0] in quantizable else None,
            dtype,
        )
        for name in parameter_shapes(model, mx.float32)
    ]
    if quantization is not None:
        quantization = replace(quantization, overrides=_overrides(steps, quantization))
    steps = [replace(step, searched=recipe.searched and step.quantization is not None) for step in steps]
    config = replace(original.config, quantization=quantization)
    if calibration is not None:  # an embedding may be the output head too: what it sees is known last
        steps.sort(key=lambda step: step.name == "model.embed_tokens.weight")
    return Plan(original, config, recipe, _shards(steps, max_shard_bytes), calibration)


def _check_quantization(original: Original, dequantize: bool) -> None:
    quantization = original.config.quantization
    if quantization is not None and not dequantize:
        raise ConversionError(
            f"{original.path} is quantized already ({quantization.bits} bits); convert the original one, or "
            "turn it back into 16 bits",
            [{"dequantize": True}],
        )
    if quantization is None and dequantize:
        raise ConversionError(f"{original.path} is not quantized; there is nothing to dequantize")


def _step(name: str, sources: tuple[Source, ...], choice: Choice | None, dtype: mx.Dtype | None) -> Step:
    path = name.rpartition(".")[0]
    shape = sources[0].shape if len(sources) == 1 else (len(sources), *sources[0].shape)
    quantization = choice(path, shape[-1]) if choice else None
    dtype = dtype or sources[0].dtype
    if quantization is None:
        outputs: tuple[OutputTensor, ...] = (OutputTensor(name, shape, dtype),)
    else:
        outputs = _quantized(path, shape, dtype, quantization)
    return Step(name, sources, dtype, quantization, outputs)


def _quantized(
    path: str, shape: tuple[int, ...], dtype: mx.Dtype, quantization: Quantization
) -> tuple[OutputTensor, ...]:
    """What `mx.quantize` makes of a matrix."""
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


def _overrides(steps: list[Step], default: Quantization) -> dict[str, Quantization | None]:
    """Layers quantized otherwise than `default`; those without scales need no mention."""
    layers = {step.name.rpartition(".")[0]: step.quantization for step in steps if step.quantization}
    return {path: layer for path, layer in layers.items() if layer != default}


def _shards(steps: list[Step], max_bytes: int) -> tuple[tuple[Step, ...], ...]:
    """Steps in files of at most `max_bytes`; a layer's tensors stay together."""
    shards: list[list[Step]] = []
    size = max_bytes
    for step in steps:
        if size + step.output_bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(step)
        size += step.output_bytes
    return tuple(tuple(shard) for shard in shards)
