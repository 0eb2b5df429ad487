"""Flags that several commands share, and their values."""

from __future__ import annotations

import typer

MODEL = typer.Option("--model", "-m", help="A folder, hub id, short name (14b, 0.6b, ...) or demo.")
KV_BITS = typer.Option(help="Store the KV cache in 4 or 8 bits.")
ADAPTER = typer.Option(help="Run the model with this LoRA or DoRA adapter: a folder of mlx-lm or PEFT.")
# Default token limit of a raw completion: unlike an answer, it has no natural end.
MAX_TOKENS = 256
DTYPE = typer.Option(
    help="What a GPU computes in: float16, bfloat16, or auto: as stored, but float16 on M1 and M2."
)
WIRED = typer.Option(
    "--wired/--no-wired",
    help="Have macOS keep the model in memory, whatever others need; off unless MLX_QWEN3_WIRED is set.",
)
UNLOAD_AFTER = typer.Option(
    min=0.1, help="Give the model's memory back after so many minutes without work; it is loaded again."
)
AUTO, OFF = "auto", "off"
DRAFT_MODEL = typer.Option(
    help="Draft tokens with this smaller model, from the `text` itself, or not at all (`off`). `auto` drafts "
    "when it is faster. The output is the same in any case."
)


def device_options(dtype: str, wired: bool | None, unload_after: float | None = None) -> dict[str, object]:
    """The values of Engine's `dtype`, `wired` and `unload_after` (seconds) for those of the flags."""
    options: dict[str, object] = {} if dtype == AUTO else {"dtype": dtype}
    options |= {} if wired is None else {"wired": wired}
    return options if unload_after is None else {**options, "unload_after": 60 * unload_after}


def draft_setting(value: str) -> str | None:
    """The value of Engine's `draft_model` for a value of --draft-model."""
    return None if value == OFF else value
