"""Loads one rank's part of a model: of each tensor only the slice it needs is read from the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.backend.memory import keep_resident, limit_memory
from mlx_qwen3.backend.safetensors_io import DTYPES
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.checkpoint.context_length import config_for_context
from mlx_qwen3.checkpoint.load import LoadedModel, load_config
from mlx_qwen3.checkpoint.memory import cache_nbytes
from mlx_qwen3.checkpoint.memory_plan import USUAL_CONTEXT, MemoryRequest, plan_memory
from mlx_qwen3.checkpoint.safetensors_files import few, read_index, stored_tensors, tensors_in
from mlx_qwen3.checkpoint.shares.read_slice import read_slices
from mlx_qwen3.checkpoint.tensor_names import StoredTensor, published_name
from mlx_qwen3.checkpoint.tied_head import config_with_own_head
from mlx_qwen3.checkpoint.validation import (
    ParameterShapes,
    build_model,
    check_counts,
    expected_tensors,
    parameter_shapes,
    validate,
)
from mlx_qwen3.distributed.group import Group
from mlx_qwen3.distributed.pipeline_parallel import PipelineShard
from mlx_qwen3.distributed.plan import TENSOR, Share, Span, check_mode, plan_pipeline, plan_tensor
from mlx_qwen3.distributed.slices import LAYER, ROWS, Slice, is_needed, slice_of, stored_name
from mlx_qwen3.distributed.tensor_parallel import TensorShard, make_partial
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.prepare import AUTO_DTYPE, cast_for_gpu, compute_dtype, prepare
from mlx_qwen3.model.qwen3 import Model

# Safetensors' 16-bit brain floats have no numpy dtype: their bits do.
NUMPY: dict[str, Any] = {
    "BF16": np.uint16,
    "F16": np.float16,
    "F32": np.float32,
    "I32": np.int32,
    "U32": np.uint32,
    "U8": np.uint8,
}
Shard = TensorShard | PipelineShard


def plan_shares(
    config: ModelConfig,
    mode: str,
    memories: list[int],
    cache_config: CacheConfig | None = None,
    tensors: ParameterShapes | None = None,
) -> list[Share]:
    """The parts of all ranks.

    Args:
        config: Of the whole model.
        mode: `tensor` or `pipeline`.
        memories: Bytes that each rank has.
        cache_config: The KV cache of its conversations.
        tensors: The model's, from `expected_tensors`, if they are known.

    Raises:
        DistributedError: The model cannot be split like that.
    """
    check_mode(mode, len(memories))
    if mode == TENSOR:
        return plan_tensor(config, len(memories))
    layers, ends = part_sizes(config, cache_config or CacheConfig(), tensors or expected_tensors(config))
    return plan_pipeline(config, layers, ends, memories)


def part_sizes(
    config: ModelConfig, cache_config: CacheConfig, tensors: ParameterShapes, tokens: int = USUAL_CONTEXT
) -> tuple[list[int], int]:
    """Bytes of each layer with its KV cache for so many tokens, and of both ends of the model."""
    cache = cache_nbytes(config, cache_config, tokens, 2) // config.num_hidden_layers
    layers, ends = [cache] * config.num_hidden_layers, 0
    for name, (shape, dtype) in tensors.items():
        size = int(np.prod(shape)) * dtype.size
        if match := LAYER.fullmatch(name):
            layers[int(match[2])] += size
        else:
            ends += size
    return layers, ends


def share_weights(config: ModelConfig, share: Share, tensors: ParameterShapes) -> int:
    """Bytes of the weights of `share`. tensors: the whole model's."""
    size = 0
    for name, (shape, dtype) in tensors.items():
        if is_needed(name, share):
            cut = slice_of(name, share, config)
            part = cut.of(shape[cut.axis]).length / shape[cut.axis] if cut is not None else 1
            size += int(np.prod(shape) * part) * dtype.size
    return size


def load_share(
    folder: Path,
    share: Share,
    group: Group,
    context: int | None = None,
    cache_config: CacheConfig | None = None,
    name: str | None = None,
    dtype: str = AUTO_DTYPE,
) -> tuple[Shard, LoadedModel]:
    """Load the part `share` of the checkpoint in `folder`, and plan its memory.

    Args:
        folder: The checkpoint. For a pipeline the files that hold this rank's layers are enough.
        share: Which part.
        group: The ranks it computes with.
        context, cache_config, name, dtype: As of `load`.

    Returns:
        What computes passes, and the rank's model with its plan.

    Raises:
        ConfigError, CheckpointError: The checkpoint cannot be used.
        InsufficientMemoryError: This part does not fit this machine.
    """
    config = config_for_context(load_config(folder), context)
    if config.packing is not None:
        raise CheckpointError(
            f"{folder} holds weights packed by another program, which are not split over machines; convert "
            "it to MLX first"
        )
    stored = share_tensors(folder, share)
    if share.mode == TENSOR:
        check_counts(folder, config, stored)
    config = config_with_own_head(config, stored)
    validate(folder, build_model(config, stored), stored, lambda tensor: is_needed(tensor, share))
    model = _build(config, share, stored)
    parts = _find_parts(model, config, share, stored)
    plan = plan_memory(_request(name or folder.name, config, share, parts, context, cache_config))
    limit_memory(plan.available, plan.estimate.workspace)
    _read(model, parts)
    model.eval()
    cast_for_gpu(model, dtype)
    shard = _prepare(model, share, config, group)
    keep_resident(model, plan.estimate.total)
    return shard, LoadedModel(model, plan, folder)


def share_tensors(folder: Path, share: Share) -> dict[str, StoredTensor]:
    """The stored tensors that `share` needs, from the files that it needs.

    Raises CheckpointError as `stored_tensors`.
    """
    index = read_index(folder)
    if index is None or share.mode == TENSOR:
        tensors = stored_tensors(folder)
        return {name: tensor for name, tensor in tensors.items() if is_needed(name, share)}
    files = share_files(index, share)
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise CheckpointError(f"{folder} lacks {few(missing)}, which hold layers of this rank; download them")
    found = [tensor for file in files for tensor in tensors_in(folder / file)]
    return {tensor.name: tensor for tensor in found if is_needed(tensor.name, share)}


def share_files(index: Mapping[str, str], share: Share) -> list[str]:
    """The files that hold what `share` needs. index: tensor name as stored -> file."""
    return sorted({file for name, file in index.items() if is_needed(published_name(name), share)})


def _build(config: ModelConfig, share: Share, stored: Mapping[str, StoredTensor]) -> Model:
    """The rank's model; its random weights are never evaluated."""
    if share.mode == TENSOR:
        return build_model(share.config(config), stored)
    model = build_model(config, stored)
    model.model.layers = model.model.layers[share.layers.start : share.layers.stop]
    if not share.has_embedding:
        model.pop("lm_head", None)
        del model.model["embed_tokens"], model.model["norm"]
    return model


class _Part:
    """One parameter of the rank's model, not read yet."""

    def __init__(self, tensors: list[StoredTensor], cut: Slice | None, dtype: str, is_stack: bool):
        self.tensors, self.cut, self.dtype, self.is_stack = tensors, cut, dtype, is_stack

    def shape(self) -> tuple[int, ...]:
        shape = list(self.tensors[0].shape)
        if self.cut is not None:
            shape[self.cut.axis] = self.cut.of(shape[self.cut.axis]).length
        return (len(self.tensors), *shape) if self.is_stack else tuple(shape)

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape())) * DTYPES[self.dtype].size

    def read(self) -> mx.array:
        """Read it from the files, and nothing around it."""
        rows: Span | None = None
        columns: Span | None = None
        if self.cut is not None:
            span = self.cut.of(self.tensors[0].shape[self.cut.axis])
            rows, columns = (span, None) if self.cut.axis == ROWS else (None, span)
        array = read_slices(self.tensors, rows, columns, NUMPY[self.dtype]).reshape(self.shape())
        return array.view(mx.bfloat16) if self.dtype == "BF16" else array


def _find_parts(
    model: Model, config: ModelConfig, share: Share, stored: Mapping[str, StoredTensor]
) -> dict[str, _Part]:
    """Where each parameter of the rank's model is in the files."""
    parts = {}
    for name, (shape, _) in parameter_shapes(model, mx.float32).items():
        published = stored_name(name, share)
        tensors = [stored[published]] if published in stored else []
        if is_stack := not tensors:
            prefix = published.replace(".switch_mlp.", ".experts.{}.")
            tensors = [stored[prefix.format(number)] for number in range(config.num_experts)]
        part = _Part(tensors, slice_of(published, share, config), tensors[0].dtype, is_stack)
        if part.shape() != shape:
            raise CheckpointError(
                f"{tensors[0].file}: {few([published])} cannot be split for rank {share.rank}: its part has "
                f"shape {list(part.shape())}, and {list(shape)} is needed"
            )
        parts[name] = part
    return parts


def _read(model: Model, parts: Mapping[str, _Part]) -> None:
    """Read the parts, one after the other."""
    for name, part in parts.items():
        try:
            array = part.read()
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{part.tensors[0].file} could not be read: {error}") from error
        mx.eval(array)
        model.load_weights([(name, array)], strict=False)
    mx.clear_cache()


def _request(
    name: str,
    config: ModelConfig,
    share: Share,
    parts: Mapping[str, _Part],
    context: int | None,
    cache_config: CacheConfig | None,
) -> MemoryRequest:
    """What this rank needs, as a model of its own would."""
    norm = next(part for name, part in parts.items() if name.endswith("layernorm.weight"))
    return MemoryRequest(
        name=name,
        config=share_config(config, share),
        weights=sum(part.num_bytes for part in parts.values()),
        itemsize=compute_dtype(DTYPES[norm.dtype]).size,
        cache_config=cache_config or CacheConfig(),
        context=context,
    )


def share_config(config: ModelConfig, share: Share) -> ModelConfig:
    """The config by which the rank's KV cache and working memory are estimated: logits are whole."""
    return replace(share.config(config), vocab_size=config.vocab_size, num_hidden_layers=share.layers.length)


def _prepare(model: Model, share: Share, config: ModelConfig, group: Group) -> Shard:
    """Make the loaded part fast on this device, and have it compute with the others."""
    if share.mode == TENSOR:
        model.args = replace(model.args, vocab_size=config.vocab_size)
        make_partial(model, share, config.vocab_size, group)
        if not is_cpu():
            prepare(model)
            return TensorShard(model, group)
    # Layer by layer: what computes a whole pass at once would leave the other ranks out.
    prepare(model.model)
    if "lm_head" in model:
        prepare(model.lm_head)
    if share.mode == TENSOR:
        return TensorShard(model, group)
    return PipelineShard(model, group, model.layers[0].input_layernorm.weight.dtype)
