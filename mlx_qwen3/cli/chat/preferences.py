"""What the chat remembers from one run to the next: the model, the mode, and how it samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_qwen3.atomic_write import write_atomically
from mlx_qwen3.cli.chat.saved_conversations import data_folder

KINDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "thinking": (bool,),
    "thinking_budget": (int,),
    "sampling": (dict,),
}
# A seed that is always the same would be no chance at all.
NOT_KEPT = ("seed",)


def load_settings() -> dict[str, Any]:
    """What was remembered, under the names of KINDS; what is not as it should be is left out."""
    try:
        content = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: value for name, value in content.items() if isinstance(value, KINDS.get(name, ()))}


def remember(**settings: Any) -> None:
    """Remember these beside the others; None forgets one. Raises OSError if they cannot be written."""
    if isinstance(sampling := settings.get("sampling"), Mapping):
        settings["sampling"] = {name: value for name, value in sampling.items() if name not in NOT_KEPT}
    known = {**load_settings(), **settings}
    write_atomically(_file(), json.dumps({name: value for name, value in known.items() if value is not None}))


def _file() -> Path:
    return data_folder() / "settings.json"
