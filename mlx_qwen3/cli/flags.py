"""Flags that several commands have."""

from __future__ import annotations

import typer

MODEL = typer.Option("--model", "-m", help="A folder, hub id, short name (14b, 0.6b, ...) or demo.")
KV_BITS = typer.Option(help="Store the cache in 4 or 8 bits.")
MAX_TOKENS = 256  # of a raw completion: unlike an answer, it has no end of its own
AUTO, OFF = "auto", "off"
DRAFT_MODEL = typer.Option(
    help="Guess ahead with this smaller model, with the `text` itself, or not (`off`). `auto` takes what "
    "pays. The same is said in any case."
)


def draft_setting(value: str) -> str | None:
    """What Engine takes for the value of --draft-model."""
    return None if value == OFF else value
