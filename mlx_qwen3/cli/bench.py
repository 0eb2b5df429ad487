"""`mlx-qwen3 bench`: measures how fast a model runs here, alone or beside another engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlx_qwen3.cli.distributed.options import DISTRIBUTED, HOSTS, engine_options
from mlx_qwen3.cli.flags import MODEL

if TYPE_CHECKING:
    from rich.console import Console

    from mlx_qwen3.bench import Result, Workload
    from mlx_qwen3.bench.result import TableRow

PEERS = ("mlx-lm", "llama.cpp")


def bench(
    model: Annotated[str | None, MODEL] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="In place of --model: random weights of this shape (0.6b, 14b, 30b-a3b)."),
    ] = None,
    bits: Annotated[int, typer.Option(help="Bits per weight of --shape: 2, 3, 4, 5, 6, 8 or 16.")] = 4,
    vs: Annotated[
        str | None, typer.Option(help="mlx-lm or llama.cpp: measure it too, in turn, in the same shape.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="Prompt lengths in tokens, separated by commas.")] = "128,1024",
    batch: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1",
    tokens: Annotated[int, typer.Option(min=1, help="Answer tokens after the first.")] = 64,
    repeat: Annotated[int, typer.Option(min=1, help="Fresh processes per engine; the median counts.")] = 3,
    limit: Annotated[
        float,
        typer.Option(min=1, help="Seconds for one prompt and answer; a slow engine generates fewer tokens."),
    ] = 30,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", help="Plot the figures to this file: .png, .svg or .pdf.")
    ] = None,
    distributed: Annotated[str | None, DISTRIBUTED] = None,
    hosts: Annotated[Path | None, HOSTS] = None,
) -> None:
    """Measure start, prefill, decode and memory, and which share of this device's limits they reach."""
    from mlx_qwen3 import bench as library
    from mlx_qwen3.cli.console import SafeConsole
    from mlx_qwen3.files import write_atomically

    if vs not in (None, *PEERS):
        raise typer.BadParameter(f"takes {' or '.join(PEERS)}, not {vs!r}", param_hint="--vs")
    if plot_file is not None:
        library.check_plot_path(plot_file)
    workload = library.Workload(
        _numbers("--prompt", prompt), _numbers("--batch", batch), tokens, repeat, limit
    )
    if distributed is not None or hosts is not None:
        if model is None or shape is not None or vs is not None or plot_file is not None:
            raise typer.BadParameter(
                "takes --model, and neither --shape, --vs nor --plot", param_hint="--distributed"
            )
        _on_machines(model, workload, engine_options(distributed, hosts), json_file)
        return
    folder = _checkpoint(model, shape, bits)
    status = SafeConsole(stderr=True)
    with status.status("measuring the device") as line:
        result = library.run(
            folder,
            workload,
            [library.ENGINES[0], *([vs] if vs else [])],
            lambda engine, number: line.update(f"{engine}, run {number + 1} of {repeat}"),
        )
    if json_file is not None:
        write_atomically(json_file, result.to_json(), 0o644)
    if plot_file is not None:
        library.write_plot(result, plot_file)
    _show(SafeConsole(), result)


def _on_machines(model: str, workload: Workload, machines: dict[str, Any], json_file: Path | None) -> None:
    """Measure the model over several machines, and say what was found."""
    from mlx_qwen3 import bench as library
    from mlx_qwen3.cli.console import SafeConsole
    from mlx_qwen3.cli.open_engine import open_engine
    from mlx_qwen3.cli.output import write_line
    from mlx_qwen3.files import write_atomically

    status = SafeConsole(stderr=True).status("measuring")
    with open_engine(model, draft_model=None, **machines) as engine, status as line:
        result = library.run_on_machines(
            engine, workload, lambda number: line.update(f"run {number + 1} of {workload.repeat}")
        )
    if json_file is not None:
        write_atomically(json_file, result.to_json(), 0o644)
    for found in result.lines():
        write_line(found)


def _numbers(option: str, text: str) -> list[int]:
    """`128,1024` -> [128, 1024]."""
    try:
        return [int(part.replace("_", "")) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"takes numbers separated by commas, not {text!r}", param_hint=option
        ) from None


def _checkpoint(model: str | None, shape: str | None, bits: int) -> Path:
    """The folder to measure: of --model, or random weights in the shape of --shape, made once."""
    from platformdirs import user_cache_path

    from mlx_qwen3 import bench as library
    from mlx_qwen3.checkpoint import resolve
    from mlx_qwen3.cli.progress import DownloadBar, progress_bars

    if (model is None) == (shape is None):
        raise typer.BadParameter("give either --model or --shape")
    if shape is None:
        assert model is not None
        with progress_bars() as bars:
            return resolve(model, DownloadBar(bars))
    if shape not in library.SHAPES:
        raise typer.BadParameter(
            f"takes one of {', '.join(library.SHAPES)}, not {shape!r}", param_hint="--shape"
        )
    if bits not in (2, 3, 4, 5, 6, 8, 16):
        raise typer.BadParameter(f"must be 2, 3, 4, 5, 6, 8 or 16, not {bits}", param_hint="--bits")
    return library.make_checkpoint(shape, bits, user_cache_path("mlx-qwen3") / "bench")


def _show(console: Console, result: Result) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for engine in result.runs:
        table.add_column(engine, justify="right")
        table.add_column("of limit", justify="right", style="dim")
    if len(result.runs) > 1:
        table.add_column("better", justify="right")
    for row in result.rows():
        table.add_row(*_cells(row, list(result.runs)))
    console.print(table)
    for line in result.words():
        console.print(line)
    console.print(_notes(result), style="dim")


def _cells(row: TableRow, engines: list[str]) -> list[str]:
    cells, medians = [row.name], row.medians
    for engine in engines:
        value, share = medians.get(engine), row.shares.get(engine)
        cells += ["" if value is None else f"{_short(value)} {row.unit}"]
        cells += ["" if share is None else f"{share:.1%}"]
    return cells if row.ratio is None else [*cells, f"{row.ratio:.2f}x"]


def _short(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _notes(result: Result) -> str:
    limits = result.ceilings
    repeat = result.setup["work"]["repeat"]
    notes = [
        f"medians of {repeat} fresh process{'es' if repeat > 1 else ''} of each engine, in turn",
        f"limits measured on {result.setup['device']}: {limits['bandwidth'] / 1e9:,.1f} GB/s through memory, "
        f"{limits['arithmetic'] / 1e9:,.0f} GFLOP/s; decoding counted as reading weights and cache as stored",
        *result.cuts(),
    ]
    return "\n" + "\n".join(notes)
