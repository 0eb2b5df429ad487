"""The conversion as a whole: plan, stream into a folder beside the output, put it in place."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import mlx.core as mx

from mlx_qwen3.checkpoint.hub import OnDownload
from mlx_qwen3.checkpoint.safetensors_files import stored_tensors
from mlx_qwen3.conversion.calibration import read_calibration
from mlx_qwen3.conversion.checksums import write_sums
from mlx_qwen3.conversion.planning import MAX_SHARD_BYTES, Plan, make_plan
from mlx_qwen3.conversion.progress import OnProgress
from mlx_qwen3.conversion.quantize.bit_allocation import allot
from mlx_qwen3.conversion.recipes import check_recipe, quantization_for, recipe_named
from mlx_qwen3.conversion.source.open import Original, open_folder, open_original
from mlx_qwen3.conversion.source.tensors import sources_of
from mlx_qwen3.conversion.verification.compare import TensorCheck
from mlx_qwen3.conversion.verification.verify import Verification, run_probe
from mlx_qwen3.conversion.write.ledger import LEDGER, Ledger
from mlx_qwen3.conversion.write.metadata import write_card, write_config, write_index
from mlx_qwen3.conversion.write.shards import write_shards
from mlx_qwen3.conversion.write.staging import LOCK, disposable, staged
from mlx_qwen3.errors import ConversionError

DISPOSABLE_SHARD_BYTES = 10**9
FLOATS = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}


@dataclass(frozen=True)
class Report:
    """What a conversion made. total_size: bytes of weights. seconds: wall time.

    verification: how far it is from its source; None if that was not asked for.
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
    bits: int | None = 4,
    group_size: int | None = None,
    mode: str = "affine",
    dtype: str | None = None,
    dequantize: bool = False,
    recipe: str | None = None,
    calibrate: str | Path | None = None,
    target_bpw: float | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_download: OnDownload | None = None,
    disposable: Path | None = None,
) -> Plan:
    """What `convert` would do with the same arguments; writes nothing.

    Reads headers only, unless `target_bpw` asks for measurements.
    """
    if dequantize and bits is not None:
        raise ConversionError(f"dequantizing gives no {bits} bits; ask for bits or dequantize, not for both")
    quantization = quantization_for(bits, group_size, mode)
    chosen = recipe_named(recipe or ("searched" if calibrate else "plain"))
    check_recipe(chosen, quantization, calibrate is not None, target_bpw is not None)
    original = open_original(source, on_download, disposable)
    calibration = read_calibration(calibrate, original) if calibrate else None
    make = partial(
        make_plan,
        original,
        quantization,
        dtype=_dtype(dtype, original),
        max_shard_bytes=max_shard_bytes,
        dequantize=dequantize,
        calibration=calibration,
    )
    if target_bpw is None:
        return make(chosen)
    if calibration is None:
        raise ConversionError("a target of bits per weight needs a text to measure on", [{"calibrate": ...}])
    return make(replace(chosen, allotted=allot(make(chosen), calibration, target_bpw)))


def convert(
    source: str | Path,
    output: str | Path,
    *,
    bits: int | None = 4,
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
) -> Report:
    """Convert the checkpoint `source` (folder or hub id) into MLX weights in the folder `output`.

    bits: 2, 3, 4, 5, 6 or 8 per weight, None leaves weights unquantized. group_size: weights that
    share a scale, None is the mode's own (64 for affine). mode: affine, mxfp4, mxfp8 or nvfp4.
    dtype: float16, bfloat16 or float32 for what is not quantized; None is what the source says.
    dequantize: the source is MLX-quantized and is turned back into numbers of `dtype`; what rounding took
    stays lost.
    recipe: how to quantize, by name; see `RECIPES` in conversion/recipes.py. None is plain, or searched
    with a calibration. calibrate: a file of text or conversations that the model is run on, a layer in
    memory at a time, to see which errors matter. target_bpw: bits per weight that the whole comes to, spread
    over the matrices by what their rounding does on that text.
    verify: read back what was written, compare it with the source, and say in the model card how far apart
    they are. force: replace a checkpoint at `output`. Files finished by a conversion that was killed are
    kept, if nothing has changed since; so smaller `max_shard_bytes` lose less. Memory stays at some
    hundred MB, whatever the model, without a calibration.
    keep_source: False removes files downloaded for this as soon as they are done with, and writes files of
    1 GB at most, each of which needs few of them; predictions are then not compared.
    Raises ConversionError, CheckpointError, ConfigError; then nothing of the output is left.
    """
    started = time.monotonic()
    output = Path(output).expanduser().resolve()
    with disposable(output, not keep_source) as downloads:
        todo = plan(
            source,
            bits=bits,
            group_size=group_size,
            mode=mode,
            dtype=dtype,
            dequantize=dequantize,
            recipe=recipe,
            calibrate=calibrate,
            target_bpw=target_bpw,
            max_shard_bytes=max_shard_bytes if keep_source else min(max_shard_bytes, DISPOSABLE_SHARD_BYTES),
            on_download=on_download,
            disposable=downloads,
        )
        _refuse_own_source(todo.original.path.resolve(), output)
        with closing(todo.original), staged(output, todo.total_size, force) as folder:
            verification = _fill(todo, folder, output.name, str(source), dtype, verify, on_progress)
    return Report(
        output=output,
        total_size=todo.total_size,
        num_parameters=todo.num_parameters,
        bits_per_weight=todo.bits_per_weight,
        num_files=todo.num_files,
        seconds=time.monotonic() - started,
        verification=verification,
    )


def _fill(
    todo: Plan,
    folder: Path,
    title: str,
    source: str,
    dtype: str | None,
    verify: bool,
    on_progress: OnProgress | None,
) -> Verification | None:
    """All of the new checkpoint into `folder`; config.json, which makes it one, near the end."""
    ledger = Ledger(folder, todo)
    ledger.clear_all_else(keep=LOCK)
    checks = write_shards(todo, folder, ledger, verify, on_progress)
    todo.original.write_files(folder)
    write_index(todo, folder)
    verification = _verification(todo, folder, checks, on_progress) if verify else None
    write_card(todo, folder, title, source, verification)
    write_config(todo, folder, FLOATS[dtype] if dtype else None)
    open_folder(folder)  # it must load
    write_sums(folder, ledger.hashes, leave_out=(LOCK, LEDGER))
    ledger.close()
    return verification


def _verification(
    todo: Plan, folder: Path, checks: list[TensorCheck], on_progress: OnProgress | None
) -> Verification:
    if todo.original.downloads is not None and not todo.original.downloads.keeps:
        return Verification(tuple(checks), None, has_checksums=True)
    made = sources_of(stored_tensors(folder), todo.config.quantization)
    probe = run_probe(replace(todo.original, path=folder, sources=made), todo.original, on_progress)
    return Verification(tuple(checks), probe, has_checksums=True)


def _dtype(asked: str | None, original: Original) -> mx.Dtype | None:
    """The format asked for, else the config's `torch_dtype`; None keeps what each tensor has."""
    if asked is not None and asked not in FLOATS:
        raise ConversionError(f"dtype {asked!r} is unknown; use {', '.join(FLOATS)}")
    return FLOATS.get(asked or str(original.raw_config.get("torch_dtype")))


def _refuse_own_source(source: Path, output: Path) -> None:
    if output == source or output in source.parents:
        raise ConversionError(f"{output} holds the source itself; name another folder")
