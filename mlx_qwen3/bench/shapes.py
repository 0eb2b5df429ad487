"""Makes a checkpoint of any family shape with random weights: speed does not depend on their values.

A normal MLX folder, which mlx-lm loads too. No tokenizer is needed: benchmarks speak token ids. Memory
stays below one shard, so a 14B is made on a small machine.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_qwen3.checkpoint import FAMILY
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

SHARD_BYTES = 1 << 30
GROUP_SIZE = 64
# Standard deviation of the random weights, as in Qwen3's initialisation.
INITIALIZER_RANGE = 0.02
# Weights drawn for a matrix; a larger one repeats them.
MOST_DRAWN = 2**24

# hidden, layers, query heads, key/value heads, intermediate, tied embeddings, (experts, of them active, size)
SHAPES: dict[str, tuple[int, int, int, int, int, bool, tuple[int, int, int] | None]] = {
    "tiny": (256, 4, 4, 2, 768, True, None),
    "tiny-moe": (256, 4, 4, 2, 768, False, (16, 4, 192)),
    **{
        member.name: (
            *(member.hidden_size, member.num_hidden_layers),
            *(member.num_attention_heads, member.num_key_value_heads),
            *(member.intermediate_size, member.tie_word_embeddings, member.experts),
        )
        for member in FAMILY.values()
    },
}

Tensors = list[tuple[str, mx.array]]


def family_config(shape: str) -> dict[str, Any]:
    """config.json of the family member `shape`, as published."""
    hidden, layers, heads, kv_heads, intermediate, tied, experts = SHAPES[shape]
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 128,
        "intermediate_size": intermediate,
        "vocab_size": 151936,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "rope_scaling": None,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
    }
    return {**config, **(_expert_config(*experts) if experts else {})}


def _expert_config(count: int, active: int, size: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": count,
        "num_experts_per_tok": active,
        "moe_intermediate_size": size,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def make_checkpoint(shape: str, bits: int, parent: Path, seed: int = 0, layers: int | None = None) -> Path:
    """Write the checkpoint below `parent` if it is not there yet; `bits` 16 is bf16. Returns its folder.

    layers: how many in place of the shape's own.
    Raises CheckpointError if it cannot be written. A folder that is there is whole.
    """
    parts = ["random", shape, f"{layers}-layers" if layers else "", "bf16" if bits == 16 else f"{bits}bit"]
    folder = parent / "-".join(filter(None, parts))
    if folder.exists():
        return folder
    config = family_config(shape)
    config["num_hidden_layers"] = layers or config["num_hidden_layers"]
    if bits != 16:
        config["quantization"] = {"group_size": GROUP_SIZE, "bits": bits, "mode": "affine"}
        config["quantization_config"] = config["quantization"]
    tensors = _tensors(ModelConfig.from_dict(config), bits)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _refuse_if_full(folder, _num_bytes(tensors))
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=parent) as part:
            whole = Path(part) / folder.name
            whole.mkdir()
            _write_weights(whole, _random_tensors(tensors, bits, seed))
            (whole / "config.json").write_text(json.dumps(config, indent=2))
            whole.rename(folder)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{folder} could not be written: {error}") from error
    return folder


def _refuse_if_full(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if num_bytes > free:
        raise CheckpointError(
            f"{folder} would take {num_bytes / 1e9:,.1f} GB and its disk has {free / 1e9:,.1f} GB free; "
            "make room or take a smaller shape"
        )


def _num_bytes(tensors: Tensors) -> int:
    # Every array is stored in 16 bits, but for packed words.
    return sum(4 * one.size if one.dtype == mx.uint32 else 2 * one.size for _, one in tensors)


def _tensors(config: ModelConfig, bits: int) -> Tensors:
    model = Model(config)  # lazy: shapes only, nothing is computed
    if bits != 16:
        nn.quantize(model, GROUP_SIZE, bits)
    return cast(Tensors, tree_flatten(model.parameters()))


def _random_tensors(tensors: Tensors, bits: int, seed: int) -> Iterator[tuple[str, mx.array]]:
    rng = np.random.default_rng(seed)
    for name, tensor in tensors:
        yield name, _random(name, tensor, bits, rng)


def _random(name: str, tensor: mx.array, bits: int, rng: np.random.Generator) -> mx.array:
    """Uniform weights of the usual size: packed integers, and the scales that bring them around zero."""
    scale = INITIALIZER_RANGE * math.sqrt(12) / 2**bits
    if tensor.dtype == mx.uint32:
        return mx.array(rng.integers(0, 2**32, tensor.shape, np.uint32))
    if name.endswith("scales"):
        return mx.full(tensor.shape, scale, mx.bfloat16)
    if name.endswith("biases"):
        return mx.full(tensor.shape, -scale * 2 ** (bits - 1), mx.bfloat16)
    if tensor.ndim == 1:
        return mx.ones(tensor.shape, mx.bfloat16)
    drawn = rng.standard_normal(min(tensor.size, MOST_DRAWN), np.float32) * np.float32(INITIALIZER_RANGE)
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
