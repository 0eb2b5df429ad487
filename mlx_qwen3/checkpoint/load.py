"""Loads a checkpoint strictly: its files are checked whole before the first weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_qwen3.backend.device import keep_resident
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.checkpoint.context_length import config_for_context
from mlx_qwen3.checkpoint.locate import resolve
from mlx_qwen3.checkpoint.memory_plan import Demand, Plan, make_plan
from mlx_qwen3.checkpoint.safetensors_files import DTYPES, StoredTensor, stored_tensors
from mlx_qwen3.checkpoint.validation import build_model, check
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.prepare import compute_dtype, prepare, wanted_copies
from mlx_qwen3.model.qwen3 import Model


def load_config(path_or_hub_id: str | Path) -> ModelConfig:
    """The config of a model, named as in `load_model`. Raises ConfigError, ModelNotFoundError."""
    return ModelConfig.from_file(resolve(path_or_hub_id) / "config.json")


@dataclass(frozen=True)
class Loaded:
    """A model with its weights, the plan it was loaded by and the folder it came from."""

    model: Model
    plan: Plan
    folder: Path


def load_model(path_or_hub_id: str | Path, context: int | None = None) -> Model:
    """The model in a folder, of a short name (`14b`), a hub id (`org/name`) or `demo`.

    context: tokens to make room for; beyond the native length YaRN is switched on, just enough.
    Returns a module with all weights in memory: model(ids (B, L), cache=None) -> logits (B, L, V).
    Raises ModelNotFoundError, ConfigError, CheckpointError naming the file and tensor at fault, or
    InsufficientMemoryError before a weight is read if the model does not fit with such a context.
    """
    return load(resolve(path_or_hub_id), context, name=str(path_or_hub_id)).model


def load(
    folder: Path,
    context: int | None = None,
    cache_config: CacheConfig | None = None,
    name: str | None = None,
    beside: Plan | None = None,
) -> Loaded:
    """As `load_model`, planned for conversations in caches of `cache_config`, and returned with the plan.

    name: what the user calls the model, for messages. beside: the plan of another model, which is to
    read the same conversations with what it leaves of the memory.
    """
    config = config_for_context(load_config(folder), context)
    stored = stored_tensors(folder)
    model = build_model(config, stored)
    check(folder, model, stored)
    demand = _demand(name or folder.name, model, stored, context, cache_config or CacheConfig())
    plan = make_plan(demand) if beside is None else make_plan(demand, beside.left, beside.context)
    _load_weights(model, sorted({tensor.file for tensor in stored.values()}))
    model.eval()
    prepare(model, plan.copies)
    keep_resident(plan.need.total)
    return Loaded(model, plan, folder)


def _demand(
    name: str,
    model: Model,
    stored: Mapping[str, StoredTensor],
    context: int | None,
    cache_config: CacheConfig,
) -> Demand:
    needed = [tensor for tensor in stored.values() if tensor.name != "lm_head.weight" or "lm_head" in model]
    dtype = DTYPES[stored["model.norm.weight"].dtype]
    return Demand(
        name=name,
        config=model.args,
        weights=sum(tensor.num_bytes for tensor in needed),
        itemsize=compute_dtype(dtype).size,
        cache_config=cache_config,
        context=context,
        copies=wanted_copies(model, dtype.size),
    )


def _load_weights(model: Model, files: list[Path]) -> None:
    """Give `model` the tensors of `files`, a layer in memory at a time beyond those loaded."""
    weights: dict[str, mx.array] = {}
    try:
        for file in files:
            weights.update(mx.load(str(file)))  # type: ignore[arg-type]
        model.load_weights(list(model.sanitize(weights).items()))
        weights.clear()  # so that experts are gone once their stack is made
        for layer in model.layers:
            mx.eval(layer.parameters())
        mx.eval(model.parameters())
    except RuntimeError as error:
        raise CheckpointError(f"{files[0].parent} could not be read: {error}") from error
