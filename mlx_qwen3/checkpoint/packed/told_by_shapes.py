"""Tells how MLX quantized a checkpoint whose config.json does not say it, from the shapes of its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from mlx_qwen3.checkpoint.packed.open import matrix_shapes
from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.checkpoint.validation import stacked_name
from mlx_qwen3.model.config import ModelConfig, Quantization
from mlx_qwen3.model.quantization import QUANTIZATION_MODES


def config_told_by_shapes(config: ModelConfig, stored: Mapping[str, StoredTensor]) -> ModelConfig:
    """`config` with the quantization that the tensors show, if it has none and all of them show one.

    To be called after `check_counts`.
    """
    if config.quantization is not None or config.packing is not None:
        return config
    if not any(name.endswith(".scales") for name in stored):
        return config
    shapes = matrix_shapes(config)
    layers: dict[str, Quantization] = {}
    for name, scales in stored.items():
        if not name.endswith(".scales"):
            continue
        path = name.removesuffix(".scales")
        weight = stored.get(f"{path}.weight")
        shape = shapes.get(f"{path}.weight") or shapes.get(
            f"{path.replace('.switch_mlp.', '.experts.0.')}.weight"
        )
        if weight is None or shape is None:
            return config  # the check of names says what is wrong
        layer = _quantization(shape[1], weight, scales, is_affine=f"{path}.biases" in stored)
        if layer is None:
            return config
        layers[stacked_name(f"{path}.weight").rpartition(".")[0]] = layer
    default = Counter((each.bits, each.group_size, each.mode) for each in layers.values()).most_common(1)[0][
        0
    ]
    quantization = Quantization(*default)
    overrides = {path: layer for path, layer in layers.items() if layer != quantization}
    return replace(config, quantization=replace(quantization, overrides=overrides))


def _quantization(
    inputs: int, weight: StoredTensor, scales: StoredTensor, is_affine: bool
) -> Quantization | None:
    """The one way to quantize rows of `inputs` numbers that gives tensors of these shapes, or None."""
    words, groups = (tensor.shape[-1] if tensor.shape else 0 for tensor in (weight, scales))
    for mode, (all_bits, group_sizes) in QUANTIZATION_MODES.items():
        for bits in all_bits:
            for size in group_sizes:
                is_right = (words * 32, groups * size) == (inputs * bits, inputs)
                if is_right and (mode == "affine") == is_affine:
                    return Quantization(bits, size, mode)
    return None
