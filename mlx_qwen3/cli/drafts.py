"""The flag --draft-model: who guesses ahead."""

from __future__ import annotations

AUTO, OFF = "auto", "off"
DRAFT_HELP = (
    "Guess ahead with this smaller model, with the `text` itself, or not (`off`). `auto` takes what pays. "
    "The same is said in any case."
)


def draft_setting(value: str) -> str | None:
    """What Engine takes for the flag's value."""
    return None if value == OFF else value
