"""`mlx-qwen3 generate`: raw completion, for scripts."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def generate(
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="The text to go on from.")] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A folder, hub id, short name (14b, 0.6b, ...) or demo.")
    ] = "demo",
    control_tokens: Annotated[
        bool, typer.Option("--control-tokens", help="Read <|im_start|> and the like as control tokens.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most tokens to write.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="1 is off.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="0 is off.")] = 20,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Tokens to make room for.")] = None,
) -> None:
    """Complete a text as it is, without a chat template; from --prompt or standard input."""
    from mlx_qwen3.cli.loading import open_engine
    from mlx_qwen3.completion import complete
    from mlx_qwen3.sampling import SamplingParams

    params = SamplingParams(temperature, top_p, top_k, max_tokens=max_tokens, seed=seed)
    text = sys.stdin.buffer.read().decode("utf-8", "replace") if prompt is None else prompt
    with open_engine(model, context=context) as engine:
        for piece in complete(engine, engine.tokenizer.encode(text, control_tokens=control_tokens), params):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
