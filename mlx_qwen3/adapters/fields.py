"""Reads single fields of adapter_config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config_fields import shown

MAX_RANK = 2**16


def refusal(folder: Path, problem: str) -> CheckpointError:
    """An error about the config of the adapter in `folder`."""
    return CheckpointError(f"{folder / 'adapter_config.json'}: {problem}")


def rank(folder: Path, raw: Mapping[str, Any], key: str) -> int:
    """A rank. Raises CheckpointError."""
    value = raw.get(key)
    if type(value) is not int or not 1 <= value <= MAX_RANK:
        raise refusal(folder, f"{key} must be a positive whole number, not {shown(value)}")
    return value


def number(folder: Path, raw: Mapping[str, Any], key: str) -> float:
    """A finite number. Raises CheckpointError."""
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refusal(folder, f"{key} must be a number, not {shown(value)}")
    return float(value)


def mapping(folder: Path, raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object; empty if it is missing. Raises CheckpointError."""
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise refusal(folder, f"{key} must be an object, not {shown(value)}")
    return value
