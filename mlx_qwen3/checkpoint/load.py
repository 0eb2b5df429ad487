"""Loads a checkpoint: validates all its files and plans the memory before it reads the first weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from mlx_qwen3.backend.memory import keep_resident, limit_memory
from mlx_qwen3.backend.safetensors_io import DTYPES
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.checkpoint.context_length import config_for_context
from mlx_qwen3.checkpoint.locate import resolve
from mlx_qwen3.checkpoint.memory_plan import MemoryPlan, MemoryRequest, plan_memory
from mlx_qwen3.checkpoint.packed.open import (
    PackedCheckpoint,
    as_mlx_stores_it,
    find_packed,
    mlx_quantization,
    mlx_weights,
)
from mlx_qwen3.checkpoint.packed.told_by_shapes import config_told_by_shapes
from mlx_qwen3.checkpoint.safetensors_files import stored_tensors
from mlx_qwen3.checkpoint.tensor_names import StoredTensor, published_weights
from mlx_qwen3.checkpoint.tied_head import config_with_own_head
from mlx_qwen3.checkpoint.transfer.transfer import OnDownload
from mlx_qwen3.checkpoint.validation import build_model, check_counts, validate
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.prepare import AUTO_DTYPE, cast_for_gpu, compute_dtype, prepare
from mlx_qwen3.model.qwen3 import Model


def load_config(path_or_hub_id: str | Path) -> ModelConfig:
    """The config of a model, named as in `load_model`. Raises ConfigError, ModelNotFoundError."""
    return ModelConfig.from_file(resolve(path_or_hub_id) / "config.json")


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights, the memory plan it was loaded by, and its folder."""

    model: Model
    plan: MemoryPlan
    folder: Path


def load_model(path_or_hub_id: str | Path, context: int | None = None) -> Model:
    """Load a model with all its weights.

    Args:
        path_or_hub_id: A folder, a short name (`14b`), a hub id (`org/name`) or `demo`.
        context: Tokens that a conversation may need. Beyond the native length YaRN is switched on, with the
            smallest factor that suffices. None plans for as many as memory allows.

    Returns:
        A module: model(ids (B, L), cache=None) -> logits (B, L, V).

    Raises:
        ModelNotFoundError: There is no such model.
        ConfigError: config.json is broken or not of a Qwen3 model, or `context` is too long for it.
        CheckpointError: A file or a tensor is missing or wrong; the message names it.
        InsufficientMemoryError: The model does not fit with this context. No weight was read.
    """
    return load(resolve(path_or_hub_id), context, name=str(path_or_hub_id), needs_head=True).model


def load(
    folder: Path,
    context: int | None = None,
    cache_config: CacheConfig | None = None,
    name: str | None = None,
    beside: MemoryPlan | None = None,
    needs_head: bool = False,
    dtype: str = AUTO_DTYPE,
    wired: bool | None = None,
    on_load: OnDownload | None = None,
) -> LoadedModel:
    """Load a model as `load_model` does, together with its memory plan.

    Args:
        folder: The checkpoint.
        context: As in `load_model`.
        cache_config: The KV cache of its conversations, for the plan.
        name: What the user calls the model, for messages.
        beside: The plan of another model that has the same conversations; this one gets its headroom.
        needs_head: Refuse an embedding model that has no output head.
        dtype: Of a GPU's numbers: `float16`, `bfloat16`, or `auto`.
        wired: Whether macOS keeps the model in memory; None does as `MLX_QWEN3_WIRED` says.
        on_load: Told after each layer how many bytes of weights are in memory, of how many. What it raises
            ends the loading.
    """
    config = config_for_context(load_config(folder), context)
    stored = stored_tensors(folder)
    check_counts(folder, config, stored)
    config = config_told_by_shapes(config, stored)
    packed: PackedCheckpoint | None = None
    if config.packing is not None:
        packed = find_packed(folder, config, stored)
        config = replace(config, packing=None, quantization=mlx_quantization(packed, name or str(folder)))
        stored = as_mlx_stores_it(packed, config)
    own = config_with_own_head(config, stored)
    config = config if needs_head and not own.has_output_head else own
    model = build_model(config, stored)
    validate(folder, model, stored)
    request = _request(name or folder.name, model, stored, context, cache_config or CacheConfig())
    if beside is None:
        plan = plan_memory(request)
        limit_memory(plan.available, plan.estimate.workspace)
    else:
        plan = plan_memory(request, beside.headroom, beside.context)
    _load_weights(model, sorted({tensor.file for tensor in stored.values()}), packed, on_load)
    model.eval()
    cast_for_gpu(model, dtype)
    prepare(model)
    keep_resident(model, plan.estimate.total, wired)
    return LoadedModel(model, plan, folder)


def _request(
    name: str,
    model: Model,
    stored: Mapping[str, StoredTensor],
    context: int | None,
    cache_config: CacheConfig,
) -> MemoryRequest:
    used = [tensor for tensor in stored.values() if tensor.name != "lm_head.weight" or "lm_head" in model]
    dtype = DTYPES[stored["model.norm.weight"].dtype]
    return MemoryRequest(
        name=name,
        config=model.args,
        weights=sum(tensor.num_bytes for tensor in used),
        itemsize=compute_dtype(dtype).size,
        cache_config=cache_config,
        context=context,
    )


def _load_weights(
    model: Model, files: list[Path], packed: PackedCheckpoint | None, on_load: OnDownload | None
) -> None:
    """Load the tensors of `files`, at most one layer at a time beyond what is already loaded."""
    weights: dict[str, mx.array] = {}
    try:
        for file in files:
            weights.update(mx.load(str(file)))  # type: ignore[arg-type]
        weights = published_weights(weights)
        if packed is not None:
            weights = {name: weights[name] for name in packed.plain}
            weights.update(mlx_weights(packed, model.args))
        model.load_weights(list(model.sanitize(weights).items()))
        weights.clear()  # frees the experts of a layer once they are stacked
        total, done = _num_bytes(model), 0
        for layer in model.layers:
            mx.eval(layer.parameters())
            done += _num_bytes(layer)
            if on_load is not None:
                on_load(done, total)
        mx.eval(model.parameters())
        mx.clear_cache()  # of experts before they were stacked
    except RuntimeError as error:
        raise CheckpointError(f"{files[0].parent} could not be read: {error}") from error
    if on_load is not None:
        on_load(total, total)


def _num_bytes(module: nn.Module) -> int:
    return sum(array.nbytes for _, array in tree_flatten(module.parameters()))
