"""Which model drafts for another, and whether it can."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.checkpoint import FAMILY, resolve
from mlx_qwen3.checkpoint.load import LoadedModel, load, load_config
from mlx_qwen3.engine.loading.watch import LoadWatch
from mlx_qwen3.errors import CheckpointError, InsufficientMemoryError, LoadCancelledError, Qwen3Error
from mlx_qwen3.model.config import ModelConfig, RopeScaling
from mlx_qwen3.model.qwen3 import Model

AUTO, TEXT = "auto", "text"
"""Settings that name no model: choose; or draft from the text itself."""
SMALLEST = "0.6b"
# A draft of four tokens must cost less than half a pass of the model, or it gains little.
WORTH_A_DRAFT = 10


def load_draft_model(
    setting: str | None,
    target: LoadedModel,
    cache_config: CacheConfig,
    context: int | None,
    watch: LoadWatch,
    models_dir: str | Path | None = None,
) -> LoadedModel | None:
    """The model that drafts for `target`, None where none does.

    setting: a model as `load_model` takes it. `auto`: the smallest of the family for a model that reads
    ten times as much for a token, if it was downloaded already and fits beside it. None, `text`: no model.
    cache_config: of the target's caches. models_dir: where downloads are, in place of the hub's cache.
    Raises what loading raises, CheckpointError if the vocabularies
    differ, and InsufficientMemoryError if the target leaves no room for as long a conversation.
    """
    if setting is None or setting == TEXT:
        return None
    if setting == AUTO:
        return _load_automatically(target, cache_config, context, watch, models_dir)
    folder = resolve(setting, watch.downloading, cancel=watch, models_dir=models_dir)
    same_size = load_config(folder).vocab_size == target.model.args.vocab_size
    if not same_size or not same_vocabulary(folder, target.folder):
        raise CheckpointError(
            f"{setting} cannot draft for {target.folder.name}: their vocabularies differ; use a model of the "
            "same family, or `text`"
        )
    try:
        return load(folder, context, cache_config, setting, beside=target.plan, on_load=watch.loading)
    except InsufficientMemoryError as error:
        fewer_bits = [{"kv_bits": 8}] if cache_config.bits is None else []
        raise InsufficientMemoryError(
            f"{setting} cannot draft for {target.folder.name}, which with a context of "
            f"{target.plan.context:,} tokens leaves it {target.plan.headroom / 1e9:.1f} GB of memory",
            [{"draft_model": TEXT}, *fewer_bits, {"context": ...}],
        ) from error


def _load_automatically(
    target: LoadedModel,
    cache_config: CacheConfig,
    context: int | None,
    watch: LoadWatch,
    models_dir: str | Path | None,
) -> LoadedModel | None:
    if bytes_read(target.model.args, target.folder) < WORTH_A_DRAFT * FAMILY[SMALLEST].num_bytes:
        return None
    from mlx_qwen3.checkpoint.hub import downloaded

    cache = None if models_dir is None else Path(models_dir)
    if (folder := downloaded(FAMILY[SMALLEST].repository, cache)) is None:
        return None
    try:
        return load_draft_model(str(folder), target, cache_config, context, watch)
    except LoadCancelledError:
        raise
    except Qwen3Error:  # no room, another vocabulary, a download that is not whole: nobody asked for it
        return None


def draft_cache_config(draft: Model, cache_config: CacheConfig) -> CacheConfig:
    """The cache of `draft`: as the target's, but not quantized where a group does not divide its heads."""
    is_divided = draft.args.head_dim % cache_config.group_size == 0
    return cache_config if is_divided else replace(cache_config, bits=None)


def bytes_read(config: ModelConfig, folder: Path) -> int:
    """Bytes of weights that a token goes through, about: with experts, the share of those chosen for it."""
    share = config.num_experts_per_tok / config.num_experts if config.num_experts else 1.0
    return int(share * sum(file.stat().st_size for file in folder.glob("*.safetensors")))


def same_vocabulary(one: Path, other: Path) -> bool:
    """Whether two checkpoints' tokenizers have the same ids for the same tokens."""
    files = [folder / "tokenizer.json" for folder in (one, other)]
    try:
        texts = [file.read_bytes() for file in files]
        return texts[0] == texts[1] or _ids(texts[0]) == _ids(texts[1])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _ids(tokenizer_json: bytes) -> dict[str, int]:
    raw: dict[str, Any] = json.loads(tokenizer_json)
    added = {token["content"]: token["id"] for token in raw["added_tokens"]}
    ids: dict[str, int] = raw["model"]["vocab"] | added
    return ids


class TwoModels:
    """A model and its draft model, whose positions are scaled alike."""

    def __init__(self, model: Any, draft_model: Any):
        self.use(model, draft_model)

    def use(self, model: Any, draft_model: Any) -> None:
        """Run these from now on; None for both while the model is unloaded."""
        self._model, self._all = model, [each for each in (model, draft_model) if each is not None]

    def hidden_states(self, inputs: mx.array, cache: Any) -> mx.array:
        hidden: mx.array = self._model.hidden_states(inputs, cache)
        return hidden

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        logits: mx.array = self._model(inputs, cache)
        return logits

    @property
    def computes_now(self) -> bool:
        """As of Model."""
        return bool(getattr(self._model, "computes_now", False))

    @property
    def output_head(self) -> Callable[[mx.array], mx.array]:
        head: Callable[[mx.array], mx.array] = self._model.output_head
        return head

    def scale_positions(self, scaling: RopeScaling | None) -> None:
        for model in self._all:
            model.scale_positions(scaling)

    def use_adapter(self, name: str | None) -> None:
        """The draft model has none: what it drafts is checked by the model with its adapter."""
        self._model.use_adapter(name)
