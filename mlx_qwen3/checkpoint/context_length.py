"""How far a model reads: YaRN where a longer context is asked for, and only as much as it takes."""

from __future__ import annotations

import math
from dataclasses import replace

from mlx_qwen3.errors import ConfigError
from mlx_qwen3.model.config import ModelConfig, RopeScaling

MAX_FACTOR = 4.0  # how far Qwen validated YaRN: 32,768 -> 131,072
FACTOR_STEP = 0.5
# Published Qwen3 configs say 40,960: the 32,768 trained on and 8,192 of room for the answer.
PUBLISHED_POSITIONS, TRAINED_POSITIONS = 40960, 32768


def config_for_context(config: ModelConfig, context: int | None) -> ModelConfig:
    """`config` made to read `context` tokens: the smallest YaRN factor that covers them, or none.

    None leaves the config as it is. A static factor costs quality on short prompts, so nothing is
    scaled up to the native length, and factors grow in steps of 0.5. Raises ConfigError beyond 4x.
    """
    if context is None:
        return config
    if context < 1:
        raise ConfigError(f"a context of {context} tokens is not possible; ask for at least 1")
    native = native_context(config)
    if context <= native:
        return _unscaled(config, native)
    factor = math.ceil(context / native / FACTOR_STEP) * FACTOR_STEP
    if factor > MAX_FACTOR:
        raise ConfigError(
            f"a context of {context:,} tokens is more than this model reads: "
            f"{native:,} natively, {int(native * MAX_FACTOR):,} with YaRN; ask for less"
        )
    scaling = config.rope_scaling or RopeScaling(factor, native)
    if scaling.factor == factor and config.rope_scaling:
        return config
    return replace(config, rope_scaling=replace(scaling, factor=factor, attention_factor=None))


def grown(config: ModelConfig, prompt: int, answer: int, longest: int) -> ModelConfig:
    """`config` made to read a conversation of `prompt` tokens that goes on.

    Room is left for `answer` more tokens, or a quarter of the native length, whichever is less
    (Qwen3's 40,960 are 32,768 and as much again as that). Nothing is scaled while it fits unscaled;
    else the smallest YaRN factor that covers it is taken. longest: tokens there is memory for.
    """
    need = max(prompt + 1, min(prompt + min(answer, native_context(config) // 4), longest))
    if need <= config.context_length or need > longest:
        return config
    return config_for_context(config, need)


def native_context(config: ModelConfig) -> int:
    """Tokens the model was trained to read, without YaRN."""
    if config.rope_scaling is not None:
        return config.rope_scaling.original_max_position_embeddings
    if config.max_position_embeddings == PUBLISHED_POSITIONS:
        return TRAINED_POSITIONS
    return config.max_position_embeddings


def _unscaled(config: ModelConfig, native: int) -> ModelConfig:
    if config.rope_scaling is None:
        return config
    return replace(config, rope_scaling=None, max_position_embeddings=native)
