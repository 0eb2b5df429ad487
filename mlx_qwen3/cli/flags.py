"""Flags that several commands share, and their values."""

from __future__ import annotations

import typer

MODEL = typer.Option("--model", "-m", help="A folder, hub id, short name (14b, 0.6b, ...) or demo.")
KV_BITS = typer.Option(help="Store the KV cache in 4 or 8 bits.")
# Default token limit of a raw completion: unlike an answer, it has no natural end.
MAX_TOKENS = 256
AUTO, OFF = "auto", "off"
DRAFT_MODEL = typer.Option(
    help="Draft tokens with this smaller model, from the `text` itself, or not at all (`off`). `auto` drafts "
    "when it is faster. The output is the same in any case."
)


def draft_setting(value: str) -> str | None:
    """The value of Engine's `draft_model` for a value of --draft-model."""
    return None if value == OFF else value
