"""Writes the files of a plan, each compared with its source before the next is begun."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mlx_qwen3.checkpoint.safetensors_files import tensors_in
from mlx_qwen3.conversion.planning import Plan, Step
from mlx_qwen3.conversion.progress import CHECKING, CONVERTING, Meter, OnProgress
from mlx_qwen3.conversion.quantize.activations import Activations
from mlx_qwen3.conversion.source.tensors import Stack, sources_of
from mlx_qwen3.conversion.verification.compare import TensorCheck, compare
from mlx_qwen3.conversion.write.ledger import Ledger
from mlx_qwen3.conversion.write.shard_writer import ShardWriter
from mlx_qwen3.conversion.write.staging import sync_one
from mlx_qwen3.conversion.write.step import run_step
from mlx_qwen3.errors import ConversionError


def write_shards(
    todo: Plan, folder: Path, ledger: Ledger, verify: bool, on_progress: OnProgress | None
) -> list[TensorCheck]:
    """Every shard of `todo` into `folder`; those finished before are only counted.

    verify: read each back and compare it with its source. Returns what that found, nothing without it.
    Raises ConversionError naming a tensor that is not its source, CheckpointError, OSError.
    """
    converting = Meter(CONVERTING, todo.source_size, on_progress)
    checking = Meter(CHECKING, todo.source_size, on_progress)
    activations = Activations(todo, todo.calibration) if todo.calibration else None
    checks = []

    def is_done(index: int) -> bool:
        name = todo.shard_name(index)
        return name in ledger and bool(ledger.checks(name) or not verify)

    for index, shard in enumerate(todo.shards):
        name = todo.shard_name(index)
        _expect(todo, [shard for i, shard in enumerate(todo.shards) if i >= index and not is_done(i)])
        if name in ledger:
            converting.advance(shard[-1].name, sum(step.source_bytes for step in shard))
        else:
            _write_shard(shard, folder / name, converting, activations)
            ledger.add(name)
        if verify:
            checks += ledger.checks(name) or _checked(todo, shard, folder / name, checking)
            ledger.add_checks(name, checks[-len(shard) :])
    return checks


def _expect(todo: Plan, shards: Sequence[Sequence[Step]]) -> None:
    """Only these are still to be made: no other file need be here."""
    if todo.original.downloads is not None:
        sources = (source for shard in shards for step in shard for source in step.sources)
        todo.original.downloads.expect(source.file.name for source in sources)


def _write_shard(shard: tuple[Step, ...], path: Path, meter: Meter, activations: Activations | None) -> None:
    with ShardWriter(path, [output for step in shard for output in step.outputs]) as writer:
        for step in shard:
            recorder = activations.recorder(step) if activations and step.searched else None
            factors = recorder.factors if recorder else None
            run_step(step, writer.write, partial(meter.advance, step.name), factors)
    sync_one(path)


def _checked(todo: Plan, shard: tuple[Step, ...], path: Path, meter: Meter) -> list[TensorCheck]:
    """What is in the file at `path`, compared with its source."""
    stored = {tensor.name: tensor for tensor in tensors_in(path)}
    made = sources_of(stored, todo.config.quantization)
    checks = []
    for step in shard:
        source = step.sources[0] if len(step.sources) == 1 else Stack(step.name, step.sources)
        check = compare(made[step.name], source, partial(meter.advance, step.name))
        if check.fault:
            raise ConversionError(
                f"{step.name} {check.fault}, as read back from the disk; check disk and memory, and try again"
            )
        checks.append(check)
    return checks
