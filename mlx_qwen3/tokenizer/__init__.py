"""Text <-> token ids, and the chat template that makes a prompt of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_qwen3.tokenizer.tokenizer import Tokenizer as Tokenizer


def __getattr__(name: str) -> Any:
    # The process of a stranger's template imports this room without the tokenizers library.
    if name != "Tokenizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlx_qwen3.tokenizer.tokenizer import Tokenizer

    return Tokenizer
