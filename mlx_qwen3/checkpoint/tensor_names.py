"""Reads other spellings of the same tensors under the names that Qwen publishes.

- Without `model.` in front (`layers.0.mlp.up_proj.weight`), as a bare transformers model is saved and as
  Qwen3-Embedding is published.
- Experts as transformers 5 holds them: `mlp.experts.gate_up_proj` (E, 2I, H), gate above up, and
  `mlp.experts.down_proj` (E, H, I).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from mlx_qwen3.errors import CheckpointError, one_line
from mlx_qwen3.model.config_fields import MAX_EXPERTS

BARE = re.compile(r"(?:embed_tokens|norm|layers\.\d+)\.")
FUSED = re.compile(r"(.*\.mlp)\.experts\.(gate_up|down)_proj((?:_scale_inv)?)")  # the scales are of FP8
# Not part of the model: rotary frequencies, which are computed, and the value head of a trained policy.
SURPLUS = re.compile(r"(?:.*\.)?rotary_emb\.inv_freq|(?:v_head|value_head)\..*")
MAX_TENSORS = 2**18  # the largest published checkpoint has 37,000, its experts one by one


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file.

    Attributes:
        name: As Qwen publishes it.
        dtype: As safetensors spells it, such as `BF16`.
        offset: Where its bytes start in the file.
    """

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str
    offset: int
    num_bytes: int


def published_name(name: str) -> str:
    """The name with the `model.` that bare transformers models lack."""
    return f"model.{name}" if BARE.match(name) else name


def published_tensors(tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
    """`tensors` of one file under their published names, fused experts one by one.

    Raises CheckpointError for more tensors than any model has.
    """
    result: list[StoredTensor] = []
    surplus: list[str] = []
    for tensor in tensors:
        if SURPLUS.fullmatch(tensor.name):
            surplus.append(tensor.name)
            continue
        tensor = replace(tensor, name=published_name(tensor.name))
        if len(result) + (tensor.shape[0] if _is_fused(tensor) else 1) > MAX_TENSORS:
            raise CheckpointError(
                f"{tensor.file} holds more than {MAX_TENSORS:,} tensors; no Qwen3 model does"
            )
        result += _experts(tensor) if _is_fused(tensor) else [tensor]
    if surplus:
        names = ", ".join(one_line(name, 80) for name in surplus[:3])
        more = f" and {len(surplus) - 3} more" if len(surplus) > 3 else ""
        warnings.warn(f"{names}{more} left out: not part of the model", stacklevel=2)
    return result


def _is_fused(tensor: StoredTensor) -> bool:
    match = FUSED.fullmatch(tensor.name)
    if match is None or len(tensor.shape) != 3 or not 0 < tensor.shape[0] <= MAX_EXPERTS:
        return False
    return match[2] == "down" or tensor.shape[1] % 2 == 0


def _experts(tensor: StoredTensor) -> Iterator[StoredTensor]:
    """The matrices in a fused tensor; each is one run of bytes."""
    count, rows, width = tensor.shape
    match = FUSED.fullmatch(tensor.name)
    assert match is not None
    names = match[2].split("_")  # gate, up; or down
    shape = (rows // len(names), width)
    size = tensor.num_bytes // (count * len(names))
    for index in range(count):
        for place, name in enumerate(names):
            yield StoredTensor(
                f"{match[1]}.experts.{index}.{name}_proj.weight{match[3]}",
                tensor.file,
                shape,
                tensor.dtype,
                tensor.offset + (index * len(names) + place) * size,
                size,
            )


def first_expert(name: str) -> str:
    """The first matrix in a fused tensor; another name unchanged."""
    match = FUSED.fullmatch(name)
    return f"{match[1]}.experts.0.{match[2].split('_')[0]}_proj.weight{match[3]}" if match else name


def published_weights(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """The same for loaded tensors, with the experts of a matrix stacked: `mlp.switch_mlp.up_proj.weight`."""
    result: dict[str, mx.array] = {}
    for name, value in weights.items():
        if SURPLUS.fullmatch(name):
            continue
        name = published_name(name)
        match = FUSED.fullmatch(name)
        if match is None:
            result[name] = value
            continue
        parts = match[2].split("_")
        for part, matrix in zip(parts, mx.split(value, len(parts), axis=1), strict=True):
            result[f"{match[1]}.switch_mlp.{part}_proj.weight"] = mx.contiguous(matrix)
    return result
