"""Draws the loss of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlx_qwen3.errors import ConversionError, install_command


def plot_losses(path: Path, losses: Sequence[tuple[int, float]]) -> None:
    """Draw the loss (nats a token) over the steps into a file. Raises ConversionError."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConversionError(f"a picture needs matplotlib: {install_command('plot')}") from None
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([step for step, _ in losses], [loss for _, loss in losses], marker=".")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats a token)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ConversionError(f"{path} cannot be written: {error}") from error
