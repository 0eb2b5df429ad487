"""Reads single fields of config.json, and refuses what is of the wrong kind, out of range or not supported.

A field that is null counts as missing. Sizes are bounded before anything is built from them: a config is
read before the weights that could contradict it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlx_qwen3.errors import ConfigError, one_line

Raw = Mapping[str, Any]

# Far above every published model, and small enough to build a model of these sizes without its weights.
MAX_LAYERS = 1024
MAX_EXPERTS = 4096
MAX_HEADS = 4096
MAX_HEAD_DIM = 8192
MAX_WIDTH = 2**20
MAX_VOCABULARY = 2**22
MAX_POSITIONS = 2**30


def shown(value: object) -> str:
    """`value` as a message shows it: one line of at most 60 characters."""
    text = repr(value[:60] if isinstance(value, str) else value)
    return one_line(text if len(text) <= 60 else f"{text[:57]}...")


def with_default(raw: Raw, key: str, default: Any) -> Any:
    """The field, or `default` if it is missing or null."""
    value = raw.get(key)
    return default if value is None else value


def mapping(raw: Raw, key: str) -> Raw:
    """An object; empty if it is missing."""
    value = with_default(raw, key, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"config.json: {key} must be an object, not {shown(value)}")
    return value


def integer(raw: Raw, key: str, default: int | None = None, *, least: int = 1, most: int = MAX_WIDTH) -> int:
    """A whole number from `least` to `most`."""
    value = with_default(raw, key, default)
    if value is None:
        raise ConfigError(f"config.json: {key} is missing")
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = "a positive whole number" if least == 1 else f"a whole number, {least} or more"
        raise ConfigError(f"config.json: {key} must be {kind}, not {shown(value)}")
    if value > most:
        raise ConfigError(f"config.json: {key} is {shown(value)}, but may be at most {most:,}")
    return value


def number(raw: Raw, key: str, default: float | None = None) -> float:
    """A finite number, zero or more."""
    value = with_default(raw, key, default)
    if value is None:
        raise ConfigError(f"config.json: {key} is missing")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf or (isinstance(value, int) and value > 2**63):
        raise ConfigError(f"config.json: {key} must be a number, zero or more, not {shown(value)}")
    return float(value)


def positive(raw: Raw, key: str, default: float) -> float:
    """A finite number above zero."""
    value = number(raw, key, default)
    if not value:
        raise ConfigError(f"config.json: {key} must be above zero")
    return value


def boolean(raw: Raw, key: str, default: bool) -> bool:
    """True or false."""
    value = with_default(raw, key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"config.json: {key} must be true or false, not {shown(value)}")
    return value


def integer_among(raw: Raw, key: str, allowed: tuple[int, ...], default: int) -> int:
    """One of the values that MLX supports for a field of `quantization`."""
    value = with_default(raw, key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        supported = ", ".join(map(str, allowed))
        raise ConfigError(f"config.json: quantization {key} is {shown(value)}, but MLX supports {supported}")
    return value


def layer_numbers(raw: Raw, key: str) -> tuple[int, ...]:
    """A list of layer numbers; empty if it is missing."""
    value = with_default(raw, key, [])
    if not isinstance(value, list) or not all(type(index) is int and index >= 0 for index in value):
        raise ConfigError(f"config.json: {key} must be a list of layer numbers")
    return tuple(value)


def refuse_unsupported(raw: Raw) -> None:
    """Raise ConfigError for variants of the architecture that no Qwen3 model has."""
    if (activation := with_default(raw, "hidden_act", "silu")) != "silu":
        raise ConfigError(f"config.json: hidden_act {shown(activation)} is not supported; Qwen3 uses silu")
    if boolean(raw, "attention_bias", False):
        raise ConfigError(
            "config.json: attention_bias is true, which is not supported; Qwen3 has no attention bias"
        )
    if _has_sliding_window(raw):
        raise ConfigError(
            "config.json: sliding_window attention (use_sliding_window or layer_types) is not supported; "
            "Qwen3 uses full attention"
        )


def _has_sliding_window(raw: Raw) -> bool:
    """Whether any layer's attention is limited to a window, by transformers' rules."""
    layer_types = with_default(raw, "layer_types", [])
    if not isinstance(layer_types, list):
        raise ConfigError("config.json: layer_types must be a list")
    if any(layer_type != "full_attention" for layer_type in layer_types):
        return True
    is_moe = raw["model_type"] == "qwen3_moe"
    if layer_types and not is_moe:  # transformers reads them for dense models only
        return False
    if not boolean(raw, "use_sliding_window", False) or raw.get("sliding_window", 4096) is None:
        return False
    first = 0 if is_moe else integer(raw, "max_window_layers", 28, least=0)
    return first < integer(raw, "num_hidden_layers", most=MAX_LAYERS)
