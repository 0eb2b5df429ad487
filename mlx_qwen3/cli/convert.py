"""`mlx-qwen3 convert`: converts a published checkpoint to MLX weights, with a progress bar on stderr."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_qwen3.cli.hub.upload import upload_folder
from mlx_qwen3.cli.output import program, write_line
from mlx_qwen3.cli.progress import DownloadBar, StageBars, progress_bars
from mlx_qwen3.cli.verify import measured_error

if TYPE_CHECKING:
    from mlx_qwen3.conversion import ConversionPlan, Report
    from mlx_qwen3.model.config import Quantization

UNQUANTIZED = 16  # --bits 16: weights are not quantized; --dtype may still change their format


def convert(
    source: Annotated[
        str,
        typer.Argument(help="A folder, hub id (org/name) or .gguf file, here or on the hub (org/name/file)."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The new folder; without it ./<source>-MLX-<bits>bit."),
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="2, 3, 4, 5, 6 or 8 bits per weight; 16 leaves weights unquantized.")
    ] = None,
    group_size: Annotated[
        int | None, typer.Option(help="Weights that share a scale: 32, 64 or 128; fixed for the mx modes.")
    ] = None,
    mode: Annotated[str, typer.Option(help="affine, mxfp4, mxfp8 or nvfp4.")] = "affine",
    dtype: Annotated[
        str | None,
        typer.Option(help="float16, bfloat16 or float32 for what is not quantized; without it the source's."),
    ] = None,
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Turn MLX-quantized weights back into numbers of --dtype.")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(help="plain, searched (less error at the same size) or mixed (see docs/conversion.md)."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Text, or .jsonl of conversations, to measure on which errors matter."),
    ] = None,
    target_bpw: Annotated[
        float | None,
        typer.Option(help="Bits per weight of the whole, divided by the errors on --calibrate's text."),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Fuse this LoRA or DoRA adapter (of mlx-lm or PEFT) into the weights.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the checkpoint at the output.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare what was written with the source.")
    ] = True,
    keep_source: Annotated[
        bool,
        typer.Option(
            "--keep-source/--no-keep-source",
            help="Keep downloaded files, or remove each when it is converted.",
        ),
    ] = True,
    upload: Annotated[
        str | None, typer.Option(help="Upload the result to this repository on the hub (private if new).")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a heat map of the error by layer and matrix (.html).")
    ] = None,
) -> None:
    """Convert a Qwen3 checkpoint to MLX weights, quantized to 4 bits unless --bits says otherwise."""
    from mlx_qwen3 import conversion
    from mlx_qwen3.conversion.options import ConversionOptions
    from mlx_qwen3.conversion.pipeline import plan_conversion, run_conversion

    options = ConversionOptions(
        bits="default" if bits is None else None if bits == UNQUANTIZED else bits,
        group_size=group_size,
        mode=mode,
        dtype=dtype,
        dequantize=dequantize,
        recipe=recipe,
        calibrate=calibrate,
        target_bpw=target_bpw,
        adapter=adapter,
    )
    if report is not None:
        conversion.check_report_path(report)
        if dry_run or not verify:
            raise typer.BadParameter("a report needs a conversion that is verified")
    output = output or _default_output(source, options.quantization)
    with progress_bars() as bars:
        if dry_run:
            plan = plan_conversion(source, options, DownloadBar(bars))
            write_line(f"{output}: {_size(plan)}{_time(plan)}; nothing was written")
            return
        result = run_conversion(
            source,
            output,
            options,
            force=force,
            verify=verify,
            keep_source=keep_source,
            on_progress=StageBars(bars),
            on_download=DownloadBar(bars),
        )
    summary = _size(result)
    if result.verification is not None:
        summary += f", {measured_error(result.verification)}"
        if report is not None:
            conversion.write_report(report, output.resolve().name, result.verification)
    write_line(f"{output}: {summary}")
    write_line(f"chat with it: {program()} chat --model {shlex.quote(str(_as_model(output)))}")
    if upload is not None:
        upload_folder(output, upload, private=True)


def _as_model(output: Path) -> Path | str:
    """`output` as a value of --model: a bare name could be that of another model."""
    return output if output.is_absolute() or len(output.parts) > 1 else f"./{output}"


def _default_output(source: str, quantization: Quantization | None) -> Path:
    """`Qwen/Qwen3-14B` -> `Qwen3-14B-MLX-4bit`, in the current folder."""
    from mlx_qwen3.checkpoint.hub_address import from_address, split_revision
    from mlx_qwen3.conversion.source.gguf_file import stem

    name = stem(Path(split_revision(from_address(source))[0]).expanduser().resolve())
    return Path(f"{name}-MLX-{quantization.bits}bit" if quantization else f"{name}-MLX")


def _size(result: ConversionPlan | Report) -> str:
    size = f"{result.total_size / 1e9:.2f} GB" if result.total_size >= 1e8 else f"{result.total_size:,} bytes"
    parameters = f"{result.num_parameters / 1e6:,.1f}M parameters"
    files = f"{result.num_files} file{'s' if result.num_files > 1 else ''}"
    return f"{parameters} in {size}, {result.bits_per_weight:.2f} bits per weight, {files}"


def _time(plan: ConversionPlan) -> str:
    """The estimated time, unless measuring it would download weights."""
    from mlx_qwen3.conversion.estimate import estimated_seconds

    if plan.source.downloads is not None:
        return ""
    minutes, seconds = divmod(max(1, round(estimated_seconds(plan))), 60)
    duration = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f", about {duration} before it is checked"
