"""`mlx-qwen3 verify`: is a converted checkpoint what its source says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_qwen3.cli.progress import DownloadBar, StageBars, progress_bars

if TYPE_CHECKING:
    from mlx_qwen3.conversion import Verification


def verify(
    folder: Annotated[Path, typer.Argument(help="The converted checkpoint.")],
    source: Annotated[
        str | None,
        typer.Option("--source", "-s", help="What it was made of: a folder, hub id or .gguf file."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a heat map of the error by layer and matrix (.html).")
    ] = None,
) -> None:
    """Check a converted checkpoint: its files, and against --source every tensor and its predictions."""
    from mlx_qwen3 import conversion

    if report is not None:
        conversion.check_report_path(report)
        if source is None:
            raise typer.BadParameter("a report compares with the source: give --source too")
    with progress_bars() as bars:
        found = conversion.verify(folder, source, on_progress=StageBars(bars), on_download=DownloadBar(bars))
    if report is not None:
        conversion.write_report(report, folder.resolve().name, found)
    typer.echo(f"{folder}: {summary(found)}")


def summary(found: Verification) -> str:
    """What was found, in one line."""
    files = "files as written" if found.has_checksums else "files whole (no SHA256SUMS to compare with)"
    if not found.tensors:
        return f"{files}, all numbers finite; give --source to compare with the original"
    text = f"{files}, {len(found.tensors)} tensors compared, relative error {found.error:.2%}"
    return f"{text}, {measured(found)}" if found.probe else text


def measured(found: Verification) -> str:
    """How far predictions are from the source's."""
    assert found.probe is not None
    return f"KL {found.probe.kl:.4f} nats a token, same top token {found.probe.top1:.1%}"
