"""The part of an adapter that one rank needs, where a model is spread over several machines."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from mlx_qwen3.adapters.adapter import Adapter, LowRank
from mlx_qwen3.distributed.plan import TENSOR, Share
from mlx_qwen3.distributed.slices import LAYER, ROWS, Slice, is_needed, slice_of
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import ModelConfig


def adapter_share(adapter: Adapter, share: Share, config: ModelConfig) -> Adapter:
    """What `share` needs of an adapter, under the names that the modules have in the rank's model.

    Of a matrix cut by rows it is the same rows of B; of one cut by columns the same columns of A, as the
    ranks add up what they compute. config: of the whole model. Raises CheckpointError.
    """
    updates = {}
    for path, update in adapter.updates.items():
        layer = LAYER.fullmatch(path)
        if layer and int(layer[2]) >= config.num_hidden_layers:
            raise CheckpointError(
                f"{adapter.folder} adapts {path}, and the model has {config.num_hidden_layers} layers; it "
                "was made for another model"
            )
        if share.mode == TENSOR and not layer:
            raise CheckpointError(
                f"{adapter.folder} adapts {path}, which cannot be split over machines; fuse it into the "
                "model first, or split the model as a pipeline"
            )
        if not is_needed(path, share):
            continue
        name = f"{layer[1]}{int(layer[2]) - share.layers.start}{layer[3]}" if layer else path
        cut = slice_of(f"{path}.weight", share, config)
        updates[name] = update if cut is None else _cut(adapter, path, update, cut)
    return replace(adapter, updates=updates)


def _cut(adapter: Adapter, path: str, update: LowRank, cut: Slice) -> LowRank:
    if update.shape[cut.axis] != cut.width:
        raise CheckpointError(
            f"{adapter.folder} adapts {path} as a matrix of {list(update.shape)}, and the model has "
            f"{cut.width} {'rows' if cut.axis == ROWS else 'columns'} there; it was made for another model"
        )
    span = slice(*cut.span)
    if cut.axis == ROWS:
        magnitude = None if update.magnitude is None else update.magnitude[span]
        part = replace(update, b=mx.contiguous(update.b[..., span, :]), magnitude=magnitude)
    elif update.magnitude is None:
        part = replace(update, a=mx.contiguous(update.a[..., span]))
    else:
        raise CheckpointError(
            f"{adapter.folder} is a DoRA adapter of {path}, whose rows no machine has whole; fuse it into "
            "the model first, or split the model as a pipeline"
        )
    mx.eval(part.a, part.b)
    return part
