"""The tokenizer of a checkpoint, found by name."""

from __future__ import annotations

from pathlib import Path

from mlx_qwen3.checkpoint.locate import resolve
from mlx_qwen3.errors import ConfigError, TokenizerError
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.tokenizer import Tokenizer


def load_tokenizer(path_or_hub_id: str | Path) -> Tokenizer:
    """Load the tokenizer of a checkpoint.

    Reads tokenizer.json, and where they exist tokenizer_config.json, generation_config.json and
    chat_template.jinja.

    Args:
        path_or_hub_id: A folder, or any other name that `load_model` takes.

    Raises:
        TokenizerError: A file is missing or broken, or the tokenizer has ids for which the model beside it
            has no embedding; the message names it.
        ModelNotFoundError: The name leads nowhere.
    """
    folder = resolve(path_or_hub_id)
    tokenizer = Tokenizer.from_folder(folder)
    _check_ids(tokenizer, folder)
    return tokenizer


def _check_ids(tokenizer: Tokenizer, folder: Path) -> None:
    """Raise TokenizerError for an id without a row in the embedding: a GPU would read other memory there."""
    try:
        rows = ModelConfig.from_file(folder / "config.json").vocab_size
    except ConfigError:  # a tokenizer by itself; where a model is loaded, that raises
        return
    vocabulary = tokenizer.get_vocab()
    token = max(vocabulary, key=vocabulary.__getitem__, default="")
    if token and vocabulary[token] >= rows:
        raise TokenizerError(
            f"{folder / 'tokenizer.json'} has token {vocabulary[token]:,}, but the embedding ends with "
            f"{rows - 1:,}; use the tokenizer that belongs to the weights, or enlarge the embedding"
        )
