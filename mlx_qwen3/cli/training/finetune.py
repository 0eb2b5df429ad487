"""`mlx-qwen3 finetune`: trains a LoRA or DoRA adapter on conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlx_qwen3.cli.flags import MODEL
from mlx_qwen3.cli.output import write_line


def finetune(
    data: Annotated[
        Path, typer.Argument(help="JSON lines, a conversation each: messages, and perhaps tools.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the adapter.")],
    model: Annotated[str, MODEL] = "demo",
    method: Annotated[str, typer.Option(help="lora or dora.")] = "lora",
    rank: Annotated[int, typer.Option(min=1, help="Of the updates.")] = 8,
    scale: Annotated[float, typer.Option(help="That the updates are multiplied by.")] = 20.0,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Adapt only the last so many layers; all without it.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Batches to learn from.")] = 200,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers in a batch.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-4,
    max_length: Annotated[
        int, typer.Option(min=1, help="The most tokens of a prompt and its answer.")
    ] = 2048,
    think: Annotated[
        bool, typer.Option("--think/--no-think", help="Learn the thinking of answers too, or only answers.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the first weights and of the order.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in the folder.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of the loss (.png, .svg).")] = None,
) -> None:
    """Train an adapter on the assistant's answers. It runs with --adapter, here and in mlx-lm."""
    from mlx_qwen3.finetuning import FinetuneOptions
    from mlx_qwen3.finetuning import finetune as run

    options = FinetuneOptions(
        method=method,
        rank=rank,
        scale=scale,
        layers=layers,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_length=max_length,
        thinking=think,
        seed=seed,
    )
    report = run(model, data, output, options, resume=resume)
    if plot is not None:
        from mlx_qwen3.finetuning.plot import plot_losses

        plot_losses(plot, report.losses)
    first, last = report.losses[0][1], report.losses[-1][1]
    write_line(f"{output}: loss {first:.3f} to {last:.3f} nats a token in {report.losses[-1][0]} steps")
