"""The conversion as a whole: plan, stream into a folder beside the output, put it in place."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlx.core as mx

from mlx_qwen3.checkpoint.find import OnDownload
from mlx_qwen3.conversion.metadata import write_metadata
from mlx_qwen3.conversion.originals import Original, open_original
from mlx_qwen3.conversion.planning import MAX_SHARD_BYTES, Plan, Step, make_plan
from mlx_qwen3.conversion.recipes import check_recipe, quantization_for, recipe_named
from mlx_qwen3.conversion.resume import Ledger
from mlx_qwen3.conversion.staging import LOCK, staged, sync_one
from mlx_qwen3.conversion.stream import run_step
from mlx_qwen3.conversion.writer import ShardWriter
from mlx_qwen3.errors import ConversionError

FLOATS = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}


@dataclass(frozen=True)
class Progress:
    """How far a conversion is: bytes read of `total_bytes`, and the tensor at work."""

    tensor: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Report:
    """What a conversion made. total_size: bytes of weights. seconds: wall time."""

    output: Path
    total_size: int
    num_parameters: int
    bits_per_weight: float
    num_files: int
    seconds: float


def plan(
    source: str | Path,
    *,
    bits: int | None = 4,
    group_size: int | None = None,
    mode: str = "affine",
    dtype: str | None = None,
    dequantize: bool = False,
    recipe: str = "plain",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_download: OnDownload | None = None,
) -> Plan:
    """What `convert` would do with the same arguments; reads headers only, writes nothing."""
    if dequantize and bits is not None:
        raise ConversionError(f"dequantizing gives no {bits} bits; ask for bits or dequantize, not for both")
    quantization = quantization_for(bits, group_size, mode)
    chosen = recipe_named(recipe)
    check_recipe(chosen, quantization)
    original = open_original(source, on_download)
    return make_plan(
        original,
        quantization,
        chosen,
        _dtype(dtype, original),
        max_shard_bytes,
        dequantize,
    )


def convert(
    source: str | Path,
    output: str | Path,
    *,
    bits: int | None = 4,
    group_size: int | None = None,
    mode: str = "affine",
    dtype: str | None = None,
    dequantize: bool = False,
    recipe: str = "plain",
    force: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_progress: Callable[[Progress], None] | None = None,
    on_download: OnDownload | None = None,
) -> Report:
    """Convert the checkpoint `source` (folder or hub id) into MLX weights in the folder `output`.

    bits: 2, 3, 4, 5, 6 or 8 per weight, None leaves weights unquantized. group_size: weights that
    share a scale, None is the mode's own (64 for affine). mode: affine, mxfp4, mxfp8 or nvfp4.
    dtype: float16, bfloat16 or float32 for what is not quantized; None is what the source says.
    dequantize: the source is MLX-quantized and is turned back into numbers of `dtype`; what rounding took
    stays lost.
    recipe: how to quantize, by name; see `RECIPES` in conversion/recipes.py.
    force: replace a checkpoint at `output`. Files finished by a conversion that was killed are kept,
    if nothing has changed since; so smaller `max_shard_bytes` lose less. Memory stays at some hundred
    MB, whatever the model.
    Raises ConversionError, CheckpointError, ConfigError; then nothing of the output is left.
    """
    started = time.monotonic()
    todo = plan(
        source,
        bits=bits,
        group_size=group_size,
        mode=mode,
        dtype=dtype,
        dequantize=dequantize,
        recipe=recipe,
        max_shard_bytes=max_shard_bytes,
        on_download=on_download,
    )
    output = Path(output).expanduser().resolve()
    _refuse_own_source(todo.original.path.resolve(), output)
    with staged(output, todo.total_size, force) as folder:
        _write_weights(todo, folder, on_progress)
        write_metadata(todo, folder, output.name, str(source), FLOATS[dtype] if dtype else None)
    return Report(
        output=output,
        total_size=todo.total_size,
        num_parameters=todo.num_parameters,
        bits_per_weight=todo.bits_per_weight,
        num_files=todo.num_files,
        seconds=time.monotonic() - started,
    )


def _write_weights(todo: Plan, folder: Path, on_progress: Callable[[Progress], None] | None) -> None:
    """Every shard of `todo` into `folder`; those finished before are only counted."""
    done, total = 0, todo.source_size

    def advance(step: Step, num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if on_progress is not None:
            on_progress(Progress(step.name, done, total))

    ledger = Ledger(folder, todo)
    ledger.clear_all_else(keep=LOCK)
    for index, shard in enumerate(todo.shards):
        if (name := todo.shard_name(index)) in ledger:
            advance(shard[-1], sum(step.source_bytes for step in shard))
        else:
            _write_shard(shard, folder / name, advance)
            ledger.add(name)
    ledger.close()


def _write_shard(shard: tuple[Step, ...], path: Path, advance: Callable[[Step, int], None]) -> None:
    with ShardWriter(path, [output for step in shard for output in step.outputs]) as writer:
        for step in shard:
            run_step(step, writer.write, partial(advance, step))
    sync_one(path)


def _dtype(asked: str | None, original: Original) -> mx.Dtype | None:
    """The format asked for, else the config's `torch_dtype`; None keeps what each tensor has."""
    if asked is not None and asked not in FLOATS:
        raise ConversionError(f"dtype {asked!r} is unknown; use {', '.join(FLOATS)}")
    return FLOATS.get(asked or str(original.raw_config.get("torch_dtype")))


def _refuse_own_source(source: Path, output: Path) -> None:
    if output == source or output in source.parents:
        raise ConversionError(f"{output} holds the source itself; name another folder")
