"""The whole conversion: plan it, stream it into a folder beside the output, and put the folder in place."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_qwen3.checkpoint.safetensors_files import stored_tensors
from mlx_qwen3.checkpoint.transfer.transfer import OnDownload
from mlx_qwen3.conversion.calibration import read_calibration
from mlx_qwen3.conversion.checksums import write_sums
from mlx_qwen3.conversion.options import (
    FLOATS,
    MAX_SHARD_BYTES,
    PATHS,
    Bits,
    ConversionOptions,
    check_callback,
    check_type,
)
from mlx_qwen3.conversion.planning import ConversionPlan, make_plan
from mlx_qwen3.conversion.progress import OnProgress
from mlx_qwen3.conversion.quantize.bit_allocation import allocate_bits
from mlx_qwen3.conversion.recipes import check_recipe, recipe_named
from mlx_qwen3.conversion.source.adapted import with_adapter
from mlx_qwen3.conversion.source.open import open_folder, open_source
from mlx_qwen3.conversion.source.tensors import source_tensors
from mlx_qwen3.conversion.verification.compare import TensorCheck
from mlx_qwen3.conversion.verification.verify import Verification, run_probe
from mlx_qwen3.conversion.write.ledger import LEDGER, Ledger
from mlx_qwen3.conversion.write.metadata import write_card, write_config, write_index
from mlx_qwen3.conversion.write.shards import write_shards
from mlx_qwen3.conversion.write.staging import LOCK, staged, temporary_folder
from mlx_qwen3.errors import ConversionError

TEMPORARY_SOURCE_SHARD_BYTES = 10**9


@dataclass(frozen=True)
class Report:
    """The result of a conversion.

    Attributes:
        output: The folder of the new checkpoint.
        total_size: Bytes of weights.
        num_parameters: Parameters of the model.
        bits_per_weight: Bits for each parameter, scales and biases included.
        num_files: Number of weight files.
        seconds: Wall time.
        verification: How far the result is from its source, None with `verify=False`.
    """

    output: Path
    total_size: int
    num_parameters: int
    bits_per_weight: float
    num_files: int
    seconds: float
    verification: Verification | None = None


def plan(
    source: str | Path,
    *,
    bits: Bits = "default",
    group_size: int | None = None,
    mode: str = "affine",
    dtype: str | None = None,
    dequantize: bool = False,
    recipe: str | None = None,
    calibrate: str | Path | None = None,
    target_bpw: float | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_download: OnDownload | None = None,
    adapter: str | Path | None = None,
) -> ConversionPlan:
    """What `convert` would do with the same arguments. Writes nothing.

    Reads only headers and the calibration text, unless `target_bpw` asks for measurements of the model.

    Args:
        source: As for `convert`, and so are the other arguments.

    Returns:
        The plan, with `total_size` and `source_size` in bytes, `bits_per_weight`, `num_parameters` and
        `num_files`.

    Raises:
        ConversionError: The options contradict each other, or do not fit the source.
        CheckpointError: The source is incomplete or not found.
        ConfigError: The source's config.json cannot be used.
    """
    options = ConversionOptions(
        bits=bits,
        group_size=group_size,
        mode=mode,
        dtype=dtype,
        dequantize=dequantize,
        recipe=recipe,
        calibrate=calibrate,
        target_bpw=target_bpw,
        max_shard_bytes=max_shard_bytes,
        adapter=adapter,
    )
    return plan_conversion(source, options, on_download)


def convert(
    source: str | Path,
    output: str | Path,
    *,
    bits: Bits = "default",
    group_size: int | None = None,
    mode: str = "affine",
    dtype: str | None = None,
    dequantize: bool = False,
    recipe: str | None = None,
    calibrate: str | Path | None = None,
    target_bpw: float | None = None,
    force: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    verify: bool = True,
    keep_source: bool = True,
    on_progress: OnProgress | None = None,
    on_download: OnDownload | None = None,
    adapter: str | Path | None = None,
) -> Report:
    """Convert a published checkpoint into MLX weights.

    Weights are read, quantized and written in chunks, so memory stays at some hundred MB for any model;
    a calibration also needs one layer of the model and its inputs. The output folder appears when it is
    complete. A conversion that was killed continues with the weight files it had finished, if options and
    source are the same; with a smaller `max_shard_bytes` less work is lost.

    Args:
        source: A folder, a hub id (`org/name`), a short name (`14b`), or a .gguf file on this machine or
            on the hub (`org/name/file.gguf`).
        output: The new folder. It must not exist or be empty, unless `force` is set.
        bits: Bits per weight: 2, 3, 4, 5, 6 or 8, as far as `mode` has them. None leaves weights
            unquantized. The default is the mode's own (4, and 8 for mxfp8), or None with `dequantize`.
        group_size: Weights that share a scale. None is the mode's own (64 for affine).
        mode: `affine`, `mxfp4`, `mxfp8` or `nvfp4`.
        dtype: `float16`, `bfloat16` or `float32`, for what is not quantized. None keeps the source's.
        dequantize: Turn a source that MLX quantized into plain numbers of `dtype`. The
            precision lost by quantizing stays lost.
        recipe: `plain` (MLX's own rounding), `searched` (scales with less error at the same size) or
            `mixed` (also more bits where errors cost most). None is `plain`, or `searched` with a
            calibration.
        calibrate: A text, or .jsonl of conversations, that the model is run on, so that the quantization
            changes its outputs on this text as little as possible.
        target_bpw: Bits per weight of the whole result. The bits are divided among the matrices by what
            their rounding costs on the calibration text.
        force: Replace a checkpoint at `output`.
        max_shard_bytes: The largest size of a weight file, in bytes. A larger parameter has its own file.
        verify: Read the result back, compare it with the source, and write the differences to the model
            card.
        keep_source: Keep downloaded files in the hub's cache. False removes each after its use, writes
            weight files of at most 1 GB, so that few of the source's are needed at a time, and does not
            compare predictions.
        on_progress: Called with a `Progress` for each chunk.
        on_download: Called with the bytes downloaded and the bytes there are.
        adapter: The folder of a LoRA or DoRA adapter, of mlx-lm or PEFT, to be fused into the weights. A
            source that MLX quantized is then dequantized, changed and quantized anew.

    Returns:
        A report with sizes, time and the verification.

    Raises:
        ConversionError: The conversion cannot start or finish. Then nothing is left of the output.
        CheckpointError: The source is incomplete, damaged or not found. After a failed download the next
            call continues.
        ConfigError: The source's config.json cannot be used.
    """
    options = ConversionOptions(
        bits=bits,
        group_size=group_size,
        mode=mode,
        dtype=dtype,
        dequantize=dequantize,
        recipe=recipe,
        calibrate=calibrate,
        target_bpw=target_bpw,
        max_shard_bytes=max_shard_bytes,
        adapter=adapter,
    )
    return run_conversion(
        source,
        output,
        options,
        force=force,
        verify=verify,
        keep_source=keep_source,
        on_progress=on_progress,
        on_download=on_download,
    )


def plan_conversion(
    source: str | Path,
    options: ConversionOptions,
    on_download: OnDownload | None = None,
    download_folder: Path | None = None,
) -> ConversionPlan:
    """`plan`, with the options in one value. download_folder: see `open_source`."""
    check_type("source", source, PATHS, "a name or path")
    check_callback("on_download", on_download)
    quantization = options.quantization
    recipe = recipe_named(options.recipe or ("searched" if options.calibrate else "plain"))
    check_recipe(recipe, quantization, options.calibrate is not None, options.target_bpw is not None)
    dtype = options.stored_dtype
    checkpoint = open_source(source, on_download, download_folder)
    if options.adapter is not None:
        checkpoint = with_adapter(checkpoint, options.adapter)
    calibration = read_calibration(options.calibrate, checkpoint) if options.calibrate else None
    if dtype is None:  # the config's; without one, each tensor keeps its own
        dtype = FLOATS.get(str(checkpoint.raw_config.get("torch_dtype")))
    rest = (dtype, options.max_shard_bytes, options.dequantize, calibration)
    result = make_plan(checkpoint, quantization, recipe, *rest)
    if calibration is None or options.target_bpw is None:
        return result
    bits = allocate_bits(result, calibration, options.target_bpw)
    return make_plan(checkpoint, quantization, replace(recipe, bits_by_path=bits), *rest)


def run_conversion(
    source: str | Path,
    output: str | Path,
    options: ConversionOptions,
    *,
    force: bool = False,
    verify: bool = True,
    keep_source: bool = True,
    on_progress: OnProgress | None = None,
    on_download: OnDownload | None = None,
) -> Report:
    """`convert`, with the options that decide what is written in one value."""
    started = time.monotonic()
    check_type("output", output, PATHS, "a path")
    check_callback("on_progress", on_progress)
    output = Path(output).expanduser().resolve()
    if not keep_source:
        max_bytes = min(options.max_shard_bytes, TEMPORARY_SOURCE_SHARD_BYTES)
        options = replace(options, max_shard_bytes=max_bytes)
    with temporary_folder(output, is_wanted=not keep_source) as download_folder:
        plan = plan_conversion(source, options, on_download, download_folder)
        _refuse_source_as_output(plan.source.path.resolve(), output)
        with closing(plan.source), staged(output, plan.total_size, force) as folder:
            verification = _fill(plan, options, folder, output.name, str(source), verify, on_progress)
    return Report(
        output=output,
        total_size=plan.total_size,
        num_parameters=plan.num_parameters,
        bits_per_weight=plan.bits_per_weight,
        num_files=plan.num_files,
        seconds=time.monotonic() - started,
        verification=verification,
    )


def _fill(
    plan: ConversionPlan,
    options: ConversionOptions,
    folder: Path,
    title: str,
    source: str,
    verify: bool,
    on_progress: OnProgress | None,
) -> Verification | None:
    """Write the new checkpoint into `folder`. config.json, which makes it a checkpoint, is written late."""
    ledger = Ledger(folder, plan)
    ledger.remove_other_files(keep=LOCK)
    checks = write_shards(plan, folder, ledger, verify, on_progress)
    plan.source.write_files(folder)
    write_index(plan, folder)
    verification = _verification(plan, folder, checks, on_progress) if verify else None
    write_card(plan, folder, title, source, verification)
    write_config(plan, folder, options.stored_dtype)
    open_folder(folder)  # checks that the result can be loaded
    write_sums(folder, ledger.hashes, leave_out=(LOCK, LEDGER))
    ledger.close()
    return verification


def _verification(
    plan: ConversionPlan, folder: Path, checks: list[TensorCheck], on_progress: OnProgress | None
) -> Verification:
    """The checks of all tensors, and a comparison of predictions if the source is still there."""
    if plan.source.downloads is not None and not plan.source.downloads.keeps_files:
        return Verification(tuple(checks), None, has_checksums=True)
    tensors = source_tensors(stored_tensors(folder), plan.config.quantization)
    probe = run_probe(replace(plan.source, path=folder, tensors=tensors), plan.source, on_progress)
    return Verification(tuple(checks), probe, has_checksums=True)


def _refuse_source_as_output(source: Path, output: Path) -> None:
    if output == source or output in source.parents:
        raise ConversionError(f"{output} holds the source itself; name another folder")
