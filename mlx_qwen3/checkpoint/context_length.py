"""Extends a model's context length with YaRN, by the smallest factor that suffices."""

from __future__ import annotations

import math
from dataclasses import replace

from mlx_qwen3.errors import ConfigError
from mlx_qwen3.model.config import ModelConfig, RopeScaling

MAX_FACTOR = 4.0  # Qwen validated YaRN up to this: 32,768 -> 131,072 tokens
FACTOR_STEP = 0.5
# Published Qwen3 configs say 40,960: the 32,768 of the training and 8,192 for the answer.
PUBLISHED_POSITIONS, TRAINED_POSITIONS = 40960, 32768


def config_for_context(config: ModelConfig, context: int | None) -> ModelConfig:
    """`config` with the smallest YaRN factor that covers `context` tokens, or without YaRN.

    A static factor costs quality on short prompts. So nothing is scaled up to the native length, and
    factors grow in steps of 0.5.

    Args:
        config: The model's config.
        context: Tokens; None returns the config unchanged.

    Raises:
        ConfigError: `context` is less than 1, or more than 4 times the native length.
    """
    if context is None:
        return config
    if not isinstance(context, int):
        raise ConfigError(f"context must be a number of tokens, not {context!r}")
    if context < 1:
        raise ConfigError(f"context must be at least 1, not {context}")
    native = native_context(config)
    if context <= native:
        return _unscaled(config, native)
    factor = math.ceil(context / native / FACTOR_STEP) * FACTOR_STEP
    if factor > MAX_FACTOR:
        raise ConfigError(
            f"a context of {context:,} tokens is too long for this model: its limit is {native:,} tokens, "
            f"or {int(native * MAX_FACTOR):,} with YaRN"
        )
    scaling = config.rope_scaling or RopeScaling(factor, native)
    if scaling.factor == factor and config.rope_scaling:
        return config
    return replace(config, rope_scaling=replace(scaling, factor=factor, attention_factor=None))


def config_for_prompt(config: ModelConfig, prompt: int, answer: int, longest: int) -> ModelConfig:
    """`config` with a context for a prompt and its answer; unchanged if they fit, or if memory forbids it.

    The context covers the prompt and `answer` tokens, but for the answer at most a quarter of the native
    length (8,192 of 32,768, as in Qwen3's 40,960).

    Args:
        config: The model's config.
        prompt: Tokens of the prompt.
        answer: The most tokens of the answer.
        longest: The longest context that memory allows, in tokens.
    """
    context = max(prompt + 1, min(prompt + min(answer, native_context(config) // 4), longest))
    if context <= config.context_length or context > longest:
        return config
    return config_for_context(config, context)


def native_context(config: ModelConfig) -> int:
    """The context length the model was trained with, in tokens."""
    if config.rope_scaling is not None:
        return config.rope_scaling.original_max_position_embeddings
    if config.max_position_embeddings == PUBLISHED_POSITIONS:
        return TRAINED_POSITIONS
    return config.max_position_embeddings


def _unscaled(config: ModelConfig, native: int) -> ModelConfig:
    if config.rope_scaling is None:
        return config
    return replace(config, rope_scaling=None, max_position_embeddings=native)
