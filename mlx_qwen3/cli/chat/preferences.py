"""What the chat remembers for later runs: the model, the thinking mode and the sampling parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_qwen3.cli.chat.saved_conversations import data_folder
from mlx_qwen3.errors import Qwen3Error
from mlx_qwen3.files import file_lock, read_bytes, write_atomically
from mlx_qwen3.generation.params import SamplingParams

MAX_BYTES = 2**20
FIELD_TYPES: dict[str, type] = {
    "model": str,
    "thinking": bool,
    "thinking_budget": int,
    "sampling": dict,
}
# A seed kept for good would give the same answers in every chat.
SAMPLING_NOT_KEPT = ("seed",)


def load_preferences() -> dict[str, Any]:
    """The remembered values by the names of FIELD_TYPES, without those of a wrong type."""
    try:
        content = json.loads(read_bytes(_file(), MAX_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: value for name, value in content.items() if _is_usable(name, value)}


def _is_usable(name: str, value: Any) -> bool:
    """Whether `value` is one that `remember` could have written as `name`."""
    kind: Any = type(value)  # not isinstance: a bool is also an int
    if kind is not FIELD_TYPES.get(name):
        return False
    if name == "thinking_budget":
        return bool(value >= 0)
    if name == "sampling":
        try:
            SamplingParams().with_values(**value)
        except (Qwen3Error, TypeError):
            return False
    return True


def remember(**preferences: Any) -> None:
    """Change these preferences and keep the others; None forgets one. Raises OSError if writing fails."""
    if isinstance(sampling := preferences.get("sampling"), Mapping):
        kept = {name: value for name, value in sampling.items() if name not in SAMPLING_NOT_KEPT}
        preferences["sampling"] = kept
    with file_lock(_file().with_name("settings.json.lock")):  # another chat may change others
        merged = {**load_preferences(), **preferences}
        content = {name: value for name, value in merged.items() if value is not None}
        write_atomically(_file(), json.dumps(content))


def _file() -> Path:
    return data_folder() / "settings.json"
