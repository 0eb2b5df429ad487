"""`mlx-qwen3 verify`: checks a converted checkpoint, alone or against its source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_qwen3.cli.output import write_line
from mlx_qwen3.cli.progress import DownloadBar, StageBars, progress_bars

if TYPE_CHECKING:
    from mlx_qwen3.conversion import Verification


def verify(
    folder: Annotated[Path, typer.Argument(help="The converted checkpoint.")],
    source: Annotated[
        str | None,
        typer.Option("--source", "-s", help="What it was converted from: a folder, hub id or .gguf file."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a heat map of the error by layer and matrix (.html).")
    ] = None,
) -> None:
    """Check a converted checkpoint: its files, and with --source every tensor and the predictions."""
    from mlx_qwen3 import conversion

    if report is not None:
        conversion.check_report_path(report)
        if source is None:
            raise typer.BadParameter("a report compares with the source: give --source too")
    with progress_bars() as bars:
        result = conversion.verify(folder, source, on_progress=StageBars(bars), on_download=DownloadBar(bars))
    if report is not None:
        conversion.write_report(report, folder.resolve().name, result)
    write_line(f"{folder}: {_summary(result)}")


def _summary(verification: Verification) -> str:
    if verification.has_checksums:
        files = "files as written"
    else:
        files = "files complete (no SHA256SUMS to compare with)"
    if not verification.tensors:
        return f"{files}, all numbers finite; give --source to compare with the original"
    return f"{files}, {len(verification.tensors)} tensors compared, {measured_error(verification)}"


def measured_error(verification: Verification) -> str:
    """How far the weights and the predictions are from the source's."""
    text = f"relative error {verification.error:.2%}"
    if (probe := verification.probe) is None:
        return text
    return f"{text}, KL {probe.kl:.4f} nats per token, same top token {probe.top1:.1%}"
