"""The Qwen3 decoder, dense and mixture of experts. Attribute names spell the checkpoint's keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.cache.mlx_lm_batches import requested_window
from mlx_qwen3.cache.prompt_cache import make_layer_cache
from mlx_qwen3.cache.window.rotating import RotatingKVCache
from mlx_qwen3.model.attention import Attention, CacheMask
from mlx_qwen3.model.config import ModelConfig, RopeScaling
from mlx_qwen3.model.fused_projections import FusedProjections
from mlx_qwen3.model.mlp import make_mlp
from mlx_qwen3.model.rope import RoPE, YarnRoPE, make_rope

EXPERT_KEY = re.compile(r"(.*\.mlp)\.experts\.(\d+)\.((?:gate|up|down)_proj\.\w+)")


class TransformerBlock(nn.Module):
    """Attention, then feed-forward. Each reads a normalised copy of x and is added to x."""

    def __init__(self, config: ModelConfig, layer_index: int):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = make_mlp(config, layer_index)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(self, x: mx.array, mask: CacheMask = None, cache: Cache | None = None) -> mx.array:
        """x (B, L, hidden) -> (B, L, hidden)."""
        x = x + self.self_attn(self.input_layernorm(x), mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Qwen3Model(nn.Module):
    """Embedding, the layers, and the final norm."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [TransformerBlock(config, index) for index in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(
        self,
        inputs: mx.array,
        cache: Sequence[Cache] | None = None,
        input_embeddings: mx.array | None = None,
    ) -> mx.array:
        """Token ids (B, L), or embeddings in their place, -> hidden states (B, L, hidden)."""
        x = self.embed_tokens(inputs) if input_embeddings is None else input_embeddings  # (B, L, hidden)
        mask = causal_mask(x.shape[1], cache)
        caches: Sequence[Cache | None] = cache or [None] * len(self.layers)
        for layer, layer_cache in zip(self.layers, caches, strict=True):
            x = layer(x, mask, layer_cache)
        return self.norm(x)


class DecodeStep(Protocol):
    """A faster way to compute a pass of the model with a cache, for at most `max_tokens` ids."""

    @property
    def max_tokens(self) -> int: ...

    def is_of(self, model: Model) -> bool:
        """Whether it still computes what `model` does: no module or weight was replaced since."""
        ...

    @property
    def computes_now(self) -> bool:
        """Whether results are computed when they are returned."""
        ...

    def __call__(self, inputs: mx.array, mask: CacheMask, cache: Sequence[Cache]) -> mx.array | None:
        """Token ids (B, L) -> logits (B, L, V); None if it does not compute these."""
        ...

    def hidden_states(self, inputs: mx.array, mask: CacheMask, cache: Sequence[Cache]) -> mx.array | None:
        """Token ids (B, L) -> hidden states (B, L, hidden); or None."""
        ...


class Model(nn.Module):
    """A Qwen3 language model.

    Keeps mlx-lm's model protocol (`args`, `model_type`, `layers`, `make_cache`, `sanitize`), so
    that its generation, training and evaluation run on this module unchanged.
    """

    _make_step: Callable[[Model], DecodeStep | None] | None = None
    _step: DecodeStep | None = None

    def __init__(self, config: ModelConfig):
        super().__init__()
        self._forms = _Forms()
        self.args = config
        self.model_type = config.model_type
        self.model = Qwen3Model(config)
        if config.has_own_head:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def __call__(
        self,
        inputs: mx.array,
        cache: Sequence[Cache] | None = None,
        input_embeddings: mx.array | None = None,
    ) -> mx.array:
        """Compute the logits of the token after each of `inputs`.

        Args:
            inputs: Token ids (B, L).
            cache: One entry per layer, from `make_prompt_cache`. It holds the S tokens before `inputs`
                and is extended by `inputs`.
            input_embeddings: (B, L, hidden), read in place of the embeddings of `inputs`.

        Returns:
            Logits (B, L, V).
        """
        if input_embeddings is not None:
            return self.output_head(self.model(inputs, cache, input_embeddings))
        if cache and (step := self._usable_step(inputs)) is not None:
            logits = step(inputs, causal_mask(inputs.shape[1], cache), cache)
            if logits is not None:
                return logits
        return self.output_head(self.model(inputs, cache))

    def hidden_states(self, inputs: mx.array, cache: Sequence[Cache]) -> mx.array:
        """Extend `cache` by token ids (B, L) -> hidden states (B, L, hidden). Computes no logits."""
        if cache and (step := self._usable_step(inputs)) is not None:
            hidden = step.hidden_states(inputs, causal_mask(inputs.shape[1], cache), cache)
            if hidden is not None:
                return hidden
        return self.model(inputs, cache)

    @property
    def computes_now(self) -> bool:
        """Whether a call returns when it has computed its result, so that nothing runs beside the caller."""
        return self._step is not None and self._step.computes_now

    @property
    def has_step(self) -> bool:
        """Whether decoding is done by the step of `use_step`, which ends where a weight was replaced."""
        return self._step is not None and self._step.is_of(self)

    def _usable_step(self, inputs: mx.array) -> DecodeStep | None:
        if self._step is None or inputs.size > self._step.max_tokens:
            return None
        if not self.has_step:
            self._step = None
        return self._step

    @property
    def output_head(self) -> Callable[[mx.array], mx.array]:
        """Hidden states (B, L, hidden) -> logits (B, L, V).

        An embedding model has none. Its embedding stands in, to compare two forms of the model.
        """
        return self.lm_head if self.args.has_own_head else self.model.embed_tokens.as_linear

    def use_step(self, make_step: Callable[[Model], DecodeStep | None]) -> None:
        """Decode with `make_step(self)` from now on, until a module or weight is replaced.

        make_step: None of it is a model, or a model with its adapter, that it has no step for.
        """
        self._make_step = make_step
        self._step = make_step(self)

    @property
    def layers(self) -> list[TransformerBlock]:
        return self.model.layers

    def make_cache(
        self, max_size: int | None = None, keep: int = 4, bits: int | None = None, group_size: int = 64
    ) -> list[KVCache | RotatingKVCache]:
        """An empty cache, one entry per layer; see `make_prompt_cache`."""
        if max_size is None:
            max_size = requested_window()
        config = CacheConfig(max_size, keep, bits, group_size)
        return [make_layer_cache(config, layer.self_attn.rope) for layer in self.layers]

    def scale_positions(self, scaling: RopeScaling | None) -> None:
        """Rotate positions by `scaling` from now on. A cache filled with another scaling no longer fits."""
        if scaling == self.args.rope_scaling:
            return
        self._put_step_aside()
        known = self._forms.ropes
        known[self.args.rope_scaling] = [layer.self_attn.rope for layer in self.layers]
        self.args = replace(self.args, rope_scaling=scaling)
        ropes = known.get(scaling) or [make_rope(self.args)] * len(self.layers)
        for layer, rope in zip(self.layers, ropes, strict=True):
            layer.self_attn.rope = rope
        self._take_step()

    def know_adapter(self, name: str, modules: Mapping[str, nn.Module]) -> None:
        """Have `modules` (by path) stand for the model's own while the adapter of this name is in use.

        They hold the model's own modules, whose weights are shared. No adapter may be in use.
        """
        assert self._forms.adapter is None
        places = {path: _parent(self, path) for path in modules}
        parents = {id(parent): parent for parent, _ in places.values()}.values()
        split = [isinstance(parent, FusedProjections) and parent.split_experts() for parent in parents]
        if any(split) and self._make_step is not None:  # steps of the matrices before have no use any more
            self._forms.steps.clear()
            self.use_step(self._make_step)
        self._forms.adapters[name] = [
            _Exchange(parent, leaf, parent[leaf], modules[path]) for path, (parent, leaf) in places.items()
        ]

    def use_adapter(self, name: str | None) -> None:
        """Compute with the adapter of this name from now on; None is the model alone."""
        forms = self._forms
        if name == forms.adapter:
            return
        self._put_step_aside()
        for exchange in forms.adapters.get(forms.adapter or "", ()):
            exchange.undo()
        forms.adapter = name
        for exchange in forms.adapters[name] if name is not None else ():
            exchange.do()
        self._take_step()

    def _put_step_aside(self) -> None:
        self._forms.steps[self.args.rope_scaling, self._forms.adapter] = self._step

    def _take_step(self) -> None:
        """The step of this scaling and adapter; one is made where there is none yet."""
        key = self.args.rope_scaling, self._forms.adapter
        if key in self._forms.steps:
            self._step = self._forms.steps[key]
        else:
            self._step = self._make_step(self) if self._make_step is not None else None

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """The tensors of a published checkpoint under this module's names and shapes.

        Stacks the matrices of experts, and drops an output head that is tied to the embedding.
        """
        if self.args.tie_word_embeddings:
            weights = {name: value for name, value in weights.items() if not name.startswith("lm_head.")}
        return stack_experts(weights, self.args.num_experts)


class _Exchange:
    """One module of the model, and the one that stands for it while an adapter is in use."""

    def __init__(self, parent: Any, leaf: str, own: nn.Module, adapted: nn.Module):
        self._parent, self._leaf, self._own, self._adapted = parent, leaf, own, adapted
        self._fused: Any = None

    def do(self) -> None:
        self._parent[self._leaf] = self._adapted
        if isinstance(self._parent, FusedProjections):
            self._fused = self._parent.set_aside()

    def undo(self) -> None:
        self._parent[self._leaf] = self._own
        if self._fused is not None:
            self._parent.take_back(self._fused)
            self._fused = None


class _Forms:
    """The forms of the model that sequences take turns with: scalings of positions, adapters, and the step
    for each pair of them. nn.Module would take a plain dict for a submodule."""

    def __init__(self) -> None:
        self.adapter: str | None = None
        self.adapters: dict[str, list[_Exchange]] = {}
        self.ropes: dict[RopeScaling | None, list[RoPE | YarnRoPE]] = {}
        self.steps: dict[tuple[RopeScaling | None, str | None], DecodeStep | None] = {}


def _parent(model: Model, path: str) -> tuple[Any, str]:
    """The module that has the one at `path` as its child, and the child's name."""
    parent: Any = model
    *parents, leaf = path.split(".")
    for key in parents:
        parent = parent[int(key)] if key.isdigit() else parent[key]
    return parent, leaf


def causal_mask(length: int, cache: Sequence[Cache] | None) -> CacheMask:
    """The causal mask for `length` new positions. The cache knows which of its rows they may see."""
    if cache:
        return cache[0].make_mask(length, return_array=False, window_size=None)
    return "causal" if length > 1 else None


def stack_experts(weights: dict[str, mx.array], num_experts: int) -> dict[str, mx.array]:
    """Join `mlp.experts.<i>.*` into `mlp.switch_mlp.*`; an incomplete set stays as it is."""
    experts: dict[str, dict[int, str]] = {}
    for name in weights:
        if match := EXPERT_KEY.fullmatch(name):
            prefix, index, leaf = match.groups()
            experts.setdefault(f"{prefix}.switch_mlp.{leaf}", {})[int(index)] = name
    stacked = dict(weights)
    for name, members in experts.items():
        if sorted(members) == list(range(num_experts)):
            stacked[name] = mx.stack([stacked.pop(members[i]) for i in range(num_experts)])
    return stacked
