"""Adapters of PEFT: `lora_A.weight` (rank, in), `lora_B.weight` (out, rank), and magnitudes of DoRA."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_qwen3.adapters.adapter import LowRank
from mlx_qwen3.adapters.fields import mapping, number, rank, refusal
from mlx_qwen3.errors import CheckpointError, one_line
from mlx_qwen3.model.config_fields import shown

WEIGHTS = "adapter_model.safetensors"
NAME = re.compile(
    r"base_model\.model\.(.+)\.(lora_A|lora_B|lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
)
# Settings that would change what is computed, with the values under which they do not.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "bias": (None, "none"),
    "fan_in_fan_out": (None, False),
    "lora_bias": (None, False),
    "modules_to_save": (None, []),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "megatron_config": (None,),
    "use_bdlora": (None,),
    "arrow_config": (None,),
}


def updates(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, mx.array]) -> dict[str, LowRank]:
    """The updates by module path. Raises CheckpointError."""
    if config["peft_type"] != "LORA":
        raise refusal(folder, f"peft_type {shown(config['peft_type'])} is not supported; LORA is")
    for field, harmless in UNSUPPORTED.items():
        if config.get(field) not in harmless:
            raise refusal(folder, f"{field} is {shown(config[field])}, which is not supported")
    is_dora = config.get("use_dora") is True
    parts: dict[str, dict[str, mx.array]] = {}
    for name, tensor in tensors.items():
        match = NAME.fullmatch(name)
        if match is None:
            raise CheckpointError(
                f"{folder / WEIGHTS} holds {one_line(name, 80)}, which is no part of an adapter"
            )
        path = match[1] if match[1].startswith(("model.", "lm_head")) else f"model.{match[1]}"
        parts.setdefault(path, {})[match[2]] = tensor
    needed = ["lora_A", "lora_B", *(["lora_magnitude_vector"] if is_dora else [])]
    result = {}
    for path, found in parts.items():
        where = f"{folder / WEIGHTS}: {one_line(path, 80)}"
        if sorted(found) != sorted(needed):
            raise CheckpointError(
                f"{where} has {', '.join(sorted(found))}, but {', '.join(needed)} belong to it"
            )
        size, scale = _rank_and_scale(folder, config, path)
        if found["lora_A"].ndim != 2 or found["lora_A"].shape[0] != size:
            raise CheckpointError(
                f"{where} has lora_A of shape {list(found['lora_A'].shape)}, but rank {size}"
            )
        magnitude = found.get("lora_magnitude_vector")
        magnitude = None if magnitude is None else magnitude.reshape(-1)
        result[path] = LowRank(found["lora_A"], found["lora_B"], scale, magnitude)
    return result


def _rank_and_scale(folder: Path, config: Mapping[str, Any], path: str) -> tuple[int, float]:
    """Rank and scale of a module: patterns for the ends of module paths win over the defaults."""
    values = {"r": config.get("r"), "lora_alpha": config.get("lora_alpha")}
    for field, patterns in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        for pattern, value in mapping(folder, config, patterns).items():
            if _matches(folder, pattern, path):
                values[field] = value
                break
    size, alpha = rank(folder, values, "r"), number(folder, values, "lora_alpha")
    return size, alpha / math.sqrt(size) if config.get("use_rslora") is True else alpha / size


def _matches(folder: Path, pattern: str, path: str) -> bool:
    """Whether a key of `rank_pattern` is the path or its end. Regular expressions are not evaluated."""
    if not re.fullmatch(r"\^?[\w.]+", pattern):
        raise refusal(folder, f"the pattern {shown(pattern)} is a regular expression, which is not supported")
    if pattern.startswith("^"):
        return path == pattern[1:]
    return path == pattern or path.endswith(f".{pattern}")
