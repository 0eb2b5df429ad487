"""Makes checkpoints of any family shape with random weights: speed does not depend on their values.

The result is a normal MLX folder, which mlx-lm loads too. It has no tokenizer: benchmarks use token ids.
At most one shard is in memory, so that a small machine can make a 14B model.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_qwen3.checkpoint.catalog import FAMILY, Shape
from mlx_qwen3.errors import BenchmarkError, CheckpointError
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

SHARD_BYTES = 1 << 30
GROUP_SIZE = 64
# Standard deviation of the random weights, as in Qwen3's initialization.
INITIALIZER_RANGE = 0.02
# At most this many weights are drawn for one matrix. A larger matrix repeats them.
MAX_DRAWN = 2**24

SHAPES: dict[str, Shape] = {
    "tiny": Shape(256, 4, 4, 2, 768, tie_word_embeddings=True),
    "tiny-moe": Shape(256, 4, 4, 2, 768, experts=(16, 4, 192)),
    **{member.name: member.shape for member in FAMILY.values()},
}

Tensors = list[tuple[str, mx.array]]


def make_checkpoint(shape: str, bits: int, parent: Path, seed: int = 0, layers: int | None = None) -> Path:
    """Write a checkpoint with random weights, unless the folder exists already.

    Args:
        shape: A name in SHAPES.
        bits: Bits per weight: 16 for bf16, else a width that MLX quantizes to.
        parent: The folder to write it below.
        seed: Seed of the weights.
        layers: Number of layers, where it is not the shape's own.

    Returns:
        The checkpoint's folder. A folder that exists is complete.

    Raises:
        BenchmarkError: There is no such shape.
        CheckpointError: The folder cannot be written.
    """
    if shape not in SHAPES:
        raise BenchmarkError(f"shape {shape!r} is none of {', '.join(SHAPES)}")
    parts = ["random", shape, f"{layers}-layers" if layers else "", "bf16" if bits == 16 else f"{bits}bit"]
    folder = parent / "-".join(filter(None, parts))
    if folder.exists():
        return folder
    config = SHAPES[shape].config_json()
    config["num_hidden_layers"] = layers or config["num_hidden_layers"]
    if bits != 16:
        config["quantization"] = {"group_size": GROUP_SIZE, "bits": bits, "mode": "affine"}
        config["quantization_config"] = config["quantization"]
    tensors = _lazy_tensors(ModelConfig.from_dict(config), bits)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _check_disk(folder, _num_bytes(tensors))
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=parent) as temporary:
            complete = Path(temporary) / folder.name
            complete.mkdir()
            _write_weights(complete, _random_tensors(tensors, bits, seed))
            (complete / "config.json").write_text(json.dumps(config, indent=2))
            complete.rename(folder)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{folder} could not be written: {error}") from error
    return folder


def _check_disk(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if num_bytes > free:
        raise CheckpointError(
            f"{folder} would take {num_bytes / 1e9:,.1f} GB and its disk has {free / 1e9:,.1f} GB free; "
            "free some space or take a smaller shape"
        )


def _num_bytes(tensors: Tensors) -> int:
    # Every value is stored in 16 bits, except packed weights in words of 32.
    return sum(4 * tensor.size if tensor.dtype == mx.uint32 else 2 * tensor.size for _, tensor in tensors)


def _lazy_tensors(config: ModelConfig, bits: int) -> Tensors:
    """The tensors by name, for their shapes and dtypes. Nothing is computed."""
    model = Model(config)
    if bits != 16:
        nn.quantize(model, GROUP_SIZE, bits)
    return cast(Tensors, tree_flatten(model.parameters()))


def _random_tensors(tensors: Tensors, bits: int, seed: int) -> Iterator[tuple[str, mx.array]]:
    rng = np.random.default_rng(seed)
    for name, tensor in tensors:
        yield name, _random(name, tensor, bits, rng)


def _random(name: str, tensor: mx.array, bits: int, rng: np.random.Generator) -> mx.array:
    """Uniform quantized weights: random packed integers, and scales and biases that center them at zero."""
    scale = INITIALIZER_RANGE * math.sqrt(12) / 2**bits
    if tensor.dtype == mx.uint32:
        return mx.array(rng.integers(0, 2**32, tensor.shape, np.uint32))
    if name.endswith("scales"):
        return mx.full(tensor.shape, scale, mx.bfloat16)
    if name.endswith("biases"):
        return mx.full(tensor.shape, -scale * 2 ** (bits - 1), mx.bfloat16)
    if tensor.ndim == 1:
        return mx.ones(tensor.shape, mx.bfloat16)
    drawn = rng.standard_normal(min(tensor.size, MAX_DRAWN), np.float32) * np.float32(INITIALIZER_RANGE)
    values = mx.array(drawn).astype(mx.bfloat16)
    repeated = mx.tile(values, -(-tensor.size // values.size))
    return repeated[: tensor.size].reshape(tensor.shape)


def _write_weights(folder: Path, tensors: Iterator[tuple[str, mx.array]]) -> None:
    weight_map: dict[str, str] = {}
    shard: dict[str, mx.array] = {}
    total = 0

    def flush() -> None:
        name = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
        mx.save_safetensors(str(folder / name), shard, {"format": "mlx"})
        weight_map.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, tensor in tensors:
        shard[name] = tensor
        total += tensor.nbytes
        if sum(value.nbytes for value in shard.values()) >= SHARD_BYTES:
            flush()
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
