"""Adapters of `mlx_lm.lora`: `lora_a` (in, rank), `lora_b` (rank, out), and `m` of DoRA.

Those of experts are `lora_a` (experts, rank, in) and `lora_b` (experts, out, rank).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_qwen3.adapters.adapter import LowRank
from mlx_qwen3.adapters.fields import mapping, number, rank, refusal
from mlx_qwen3.errors import CheckpointError, one_line
from mlx_qwen3.model.config_fields import shown

WEIGHTS = "adapters.safetensors"
KINDS = ("lora", "dora")
LEAVES = ("lora_a", "lora_b", "m")


def updates(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, mx.array]) -> dict[str, LowRank]:
    """The updates by module path. Raises CheckpointError."""
    kind = config.get("fine_tune_type", "lora")
    if kind == "full":
        raise refusal(folder, "it holds whole weights, not an adapter; fuse it with mlx_lm.fuse first")
    if kind not in KINDS:
        raise refusal(folder, f"fine_tune_type {shown(kind)} is unknown; known are {', '.join(KINDS)}")
    parameters = mapping(folder, config, "lora_parameters")
    size, scale = rank(folder, parameters, "rank"), number(folder, parameters, "scale")
    parts: dict[str, dict[str, mx.array]] = {}
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        if leaf not in LEAVES:
            raise CheckpointError(
                f"{folder / WEIGHTS} holds {one_line(name, 80)}, which is no part of an adapter"
            )
        parts.setdefault(path, {})[leaf] = tensor
    return {path: _update(folder, path, found, kind == "dora", size, scale) for path, found in parts.items()}


def _update(
    folder: Path, path: str, parts: Mapping[str, mx.array], is_dora: bool, size: int, scale: float
) -> LowRank:
    where = f"{folder / WEIGHTS}: {one_line(path, 80)}"
    needed = LEAVES if is_dora else LEAVES[:2]
    if set(parts) != set(needed):
        raise CheckpointError(f"{where} has {', '.join(sorted(parts))}, but {', '.join(needed)} belong to it")
    a, b = parts["lora_a"], parts["lora_b"]
    if path.endswith("embed_tokens"):
        raise CheckpointError(f"{where} is an embedding; adapters of embeddings are not supported")
    if a.ndim == 2:
        a, b = a.T, b.T
    if a.ndim not in (2, 3) or a.shape[-2] != size:
        raise CheckpointError(f"{where} has lora_a of shape {list(parts['lora_a'].shape)}, but rank {size}")
    return LowRank(a, b, scale, parts.get("m"))
