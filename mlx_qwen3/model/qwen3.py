"""The Qwen3 decoder, dense and mixture of experts. Attribute names spell the checkpoint's keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.cache.prompt_cache import make_layer_cache
from mlx_qwen3.cache.window.rotating import RotatingKVCache
from mlx_qwen3.model.attention import Attention
from mlx_qwen3.model.attention_kernels import Mask
from mlx_qwen3.model.compiled_step import Step
from mlx_qwen3.model.config import ModelConfig, RopeScaling
from mlx_qwen3.model.mlp import make_mlp
from mlx_qwen3.model.rope import RoPE, YarnRoPE, make_rope

EXPERT_KEY = re.compile(r"(.*\.mlp)\.experts\.(\d+)\.((?:gate|up|down)_proj\.\w+)")


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each on a normalised copy that is added back."""

    def __init__(self, config: ModelConfig, layer_index: int):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = make_mlp(config, layer_index)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(self, x: mx.array, mask: Mask = None, cache: Cache | None = None) -> mx.array:
        x = x + self.self_attn(self.input_layernorm(x), mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Qwen3Model(nn.Module):
    """Embedding, the layers, and the final norm: ids in, hidden states out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [TransformerBlock(config, index) for index in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(self, inputs: mx.array, cache: Sequence[Cache] | None = None) -> mx.array:
        """inputs (B, L) -> hidden states (B, L, hidden)."""
        x = self.embed_tokens(inputs)
        mask = causal_mask(inputs.shape[1], cache)
        caches: Sequence[Cache | None] = cache or [None] * len(self.layers)
        for layer, layer_cache in zip(self.layers, caches, strict=True):
            x = layer(x, mask, layer_cache)
        return self.norm(x)


class Model(nn.Module):
    """A Qwen3 language model.

    Keeps mlx-lm's model protocol (`args`, `model_type`, `layers`, `make_cache`, `sanitize`), so
    that its generation, training and evaluation run on this module unchanged.
    """

    _step: Step | None = None

    def __init__(self, config: ModelConfig):
        super().__init__()
        self._scales = _Scales()
        self.args = config
        self.model_type = config.model_type
        self.model = Qwen3Model(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def __call__(self, inputs: mx.array, cache: Sequence[Cache] | None = None) -> mx.array:
        """Logits of the token after each of `inputs`.

        inputs: token ids (B, L). cache: one entry a layer, from `make_prompt_cache`; it holds the
        S tokens before `inputs` and is extended by them. Returns logits (B, L, V).
        """
        if self._step is not None and cache and inputs.size <= Step.MAX_TOKENS:
            if self._step.is_of(self):
                return self._step(inputs, causal_mask(inputs.shape[1], cache), cache)
            self._step = None
        return self.output_head(self.model(inputs, cache))

    def read(self, inputs: mx.array, cache: Sequence[Cache]) -> mx.array:
        """Take `inputs` (B, L) into `cache`. Returns hidden states (B, L, hidden); no logits are made."""
        return self.model(inputs, cache)

    @property
    def output_head(self) -> Callable[[mx.array], mx.array]:
        """Normalised hidden states (B, L, hidden) -> logits (B, L, V)."""
        return self.model.embed_tokens.as_linear if self.args.tie_word_embeddings else self.lm_head

    def compile_step(self) -> None:
        """Compile the pass of a few tokens through the cache, until a module or weight is replaced."""
        self._step = Step(self)

    @property
    def layers(self) -> list[TransformerBlock]:
        return self.model.layers

    def make_cache(
        self, max_size: int | None = None, keep: int = 4, bits: int | None = None, group_size: int = 64
    ) -> list[KVCache | RotatingKVCache]:
        """An empty cache, one entry a layer; see `make_prompt_cache`."""
        config = CacheConfig(max_size, keep, bits, group_size)
        return [make_layer_cache(config, layer.self_attn.rope) for layer in self.layers]

    def scale_positions(self, scaling: RopeScaling | None) -> None:
        """Rotate positions by `scaling` from now on. A cache filled otherwise does not go with that."""
        if scaling == self.args.rope_scaling:
            return
        is_compiled = self._step is not None
        self._scales.keep(self.args.rope_scaling, [layer.self_attn.rope for layer in self.layers], self._step)
        self.args = replace(self.args, rope_scaling=scaling)
        ropes, self._step = self._scales.get(self.args, len(self.layers))
        for layer, rope in zip(self.layers, ropes, strict=True):
            layer.self_attn.rope = rope
        if is_compiled and self._step is None:
            self.compile_step()

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """A published checkpoint's tensors under this module's names and shapes.

        Stacks per-expert matrices, and drops an output head that is tied to the embedding.
        """
        if self.args.tie_word_embeddings:
            weights = {name: value for name, value in weights.items() if not name.startswith("lm_head.")}
        return stack_experts(weights, self.args.num_experts)


class _Scales:
    """The rotary embeddings of scalings in use, and the step compiled with each: conversations that
    take turns at different scalings switch between them for every token."""

    def __init__(self) -> None:
        self._made: dict[RopeScaling | None, tuple[list[RoPE | YarnRoPE], Step | None]] = {}

    def keep(self, scaling: RopeScaling | None, ropes: list[RoPE | YarnRoPE], step: Step | None) -> None:
        self._made[scaling] = ropes, step

    def get(self, config: ModelConfig, layers: int) -> tuple[list[RoPE | YarnRoPE], Step | None]:
        """One embedding a layer, and the step that was compiled with them, if it was."""
        return self._made.get(config.rope_scaling) or ([make_rope(config)] * layers, None)


def causal_mask(length: int, cache: Sequence[Cache] | None) -> Mask:
    """What hides the future from `length` new rows; a cache knows which of its rows they may see."""
    if cache:
        return cache[0].make_mask(length, return_array=False, window_size=None)
    return "causal" if length > 1 else None


def stack_experts(weights: dict[str, mx.array], num_experts: int) -> dict[str, mx.array]:
    """Join `mlp.experts.<i>.*` into `mlp.switch_mlp.*`; a set that is not whole is left as it is."""
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
