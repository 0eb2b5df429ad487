"""The tokenizer of a checkpoint, found by name."""

from __future__ import annotations

from pathlib import Path

from mlx_qwen3.checkpoint.locate import resolve
from mlx_qwen3.tokenizer import Tokenizer


def load_tokenizer(path_or_hub_id: str | Path) -> Tokenizer:
    """Load the tokenizer of a checkpoint.

    Reads tokenizer.json, and where they exist tokenizer_config.json, generation_config.json and
    chat_template.jinja.

    Args:
        path_or_hub_id: A folder, or any other name that `load_model` takes.

    Raises:
        TokenizerError: A file is missing or broken; the message names it.
        ModelNotFoundError: The name leads nowhere.
    """
    return Tokenizer.from_folder(resolve(path_or_hub_id))
