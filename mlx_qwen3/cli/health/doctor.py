"""`mlx-qwen3 doctor`: checks this machine, and prints a block to paste into a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlx_qwen3.cli.output import write_error, write_line

ONE_LINE_EACH = "each problem is a line on stderr, and the exit code is 1"


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="A few seconds: attention, quantized products, sampling, batches.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only the check of this name; may be given several times.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything to this file.")] = None,
) -> None:
    """Check that this machine computes what it should, and how fast. Needs no download."""
    from mlx_qwen3.cli.console import SafeConsole
    from mlx_qwen3.cli.health.once import remember
    from mlx_qwen3.doctor import diagnose
    from mlx_qwen3.files import write_atomically

    console = SafeConsole(stderr=True)
    with console.status("checking") as line:
        report = diagnose(quick, only, lambda name: line.update(f"checking {name}"))
    if json_file is not None:
        write_atomically(json_file, report.to_json(), 0o644)
    if only is None:
        remember(report)
    write_line(report.block())
    if report.is_well:
        write_line("nothing is wrong with this machine")
    else:
        for problem in report.problems:
            write_error(problem)
        raise typer.Exit(1)
