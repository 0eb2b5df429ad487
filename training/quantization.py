"""Rounds weights to 4 bits, during training and for the checkpoint.

MLX rounds, so that the trained weights are bit for bit those that it loads. Arrays cross over through numpy.
"""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import torch
from mlx.utils import tree_flatten, tree_unflatten

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


def rounded_tensor(weight: torch.Tensor) -> torch.Tensor:
    """`rounded` of a tensor, on its device."""
    return torch.from_numpy(np.array(rounded(mx.array(weight.cpu().numpy())))).to(weight.device)


def write_checkpoint(weights: dict[str, torch.Tensor], settings: dict, folder: Path) -> None:
    """config.json and model.safetensors in the form of a published MLX 4-bit checkpoint."""
    model = Model(ModelConfig.from_dict(settings))
    arrays = [(name, mx.array(weight.cpu().numpy()).astype(mx.bfloat16)) for name, weight in weights.items()]
    model.update(tree_unflatten(arrays))
    nn.quantize(model, group_size=GROUP_SIZE, bits=BITS)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, metadata={"format": "mlx"})
    quantization = {"group_size": GROUP_SIZE, "bits": BITS, "mode": "affine"}
    config = {**settings, "quantization": quantization, "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(dict(sorted(config.items())), indent=4) + "\n")
