"""Rounds weights to 4 bits, during training and for the checkpoint."""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

BITS, GROUP_SIZE = 4, 64


def rounded(weight: mx.array) -> mx.array:
    """`weight` as it is after storing and loading: matrices in 4 bits, all else in bfloat16."""
    stored = weight.astype(mx.bfloat16)
    if weight.ndim == 2:
        packed = mx.quantize(stored, group_size=GROUP_SIZE, bits=BITS)
        # In float32 from here: a loader does not round the product of scale and code again.
        scales, biases = (part.astype(mx.float32) for part in packed[1:])
        return mx.dequantize(packed[0], scales, biases, group_size=GROUP_SIZE, bits=BITS)
    return stored.astype(mx.float32)


def round_parameters(parameters: dict) -> dict:
    return tree_map(rounded, parameters)


def write_checkpoint(parameters: dict, settings: dict, folder: Path) -> None:
    """config.json and model.safetensors in the form of a published MLX 4-bit checkpoint."""
    model = Model(ModelConfig.from_dict(settings))
    model.update(tree_map(lambda weight: weight.astype(mx.bfloat16), parameters))
    nn.quantize(model, group_size=GROUP_SIZE, bits=BITS)
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    quantization = {"group_size": GROUP_SIZE, "bits": BITS, "mode": "affine"}
    config = {**settings, "quantization": quantization, "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(dict(sorted(config.items())), indent=4) + "\n")
