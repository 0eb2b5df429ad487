"""Writes the weight files of a plan, and compares each with its source before the next is started."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mlx_qwen3.checkpoint.safetensors_files import tensors_in
from mlx_qwen3.conversion.planning import ConversionPlan, ConversionStep
from mlx_qwen3.conversion.progress import CHECKING, CONVERTING, Meter, OnProgress
from mlx_qwen3.conversion.quantize.activations import Activations
from mlx_qwen3.conversion.source.tensors import StackedTensor, source_tensors
from mlx_qwen3.conversion.verification.compare import TensorCheck, compare
from mlx_qwen3.conversion.write.ledger import Ledger
from mlx_qwen3.conversion.write.shard_writer import ShardWriter
from mlx_qwen3.conversion.write.staging import sync_path
from mlx_qwen3.conversion.write.step import run_step
from mlx_qwen3.errors import ConversionError


def write_shards(
    plan: ConversionPlan, folder: Path, ledger: Ledger, verify: bool, on_progress: OnProgress | None
) -> list[TensorCheck]:
    """Write the weight files of `plan` that the ledger does not list as finished.

    verify: read each file back and compare its tensors with their source. Returns these checks.
    Raises ConversionError, which names a tensor that differs, CheckpointError, OSError.
    """
    converting = Meter(CONVERTING, plan.source_size, on_progress)
    checking = Meter(CHECKING, plan.source_size, on_progress)
    activations = Activations(plan, plan.calibration) if plan.calibration else None
    checks = []

    def is_done(index: int) -> bool:
        name = plan.shard_name(index)
        return name in ledger and bool(ledger.checks(name) or not verify)

    for index, shard in enumerate(plan.shards):
        name = plan.shard_name(index)
        if plan.source.downloads is not None:
            remaining = (plan.shards[i] for i in range(index, plan.num_files) if not is_done(i))
            plan.source.downloads.expect(
                file.name
                for steps in remaining
                for step in steps
                for source in step.sources
                for file in source.files
            )
        if name in ledger:
            converting.advance(shard[-1].name, sum(step.source_bytes for step in shard))
        else:
            _write_shard(shard, folder / name, converting, activations)
            ledger.add(name)
        if verify:
            checks += ledger.checks(name) or _checks(plan, shard, folder / name, checking)
            ledger.add_checks(name, checks[-len(shard) :])
    return checks


def _write_shard(
    shard: tuple[ConversionStep, ...], path: Path, meter: Meter, activations: Activations | None
) -> None:
    with ShardWriter(path, [output for step in shard for output in step.outputs]) as writer:
        for step in shard:
            recorder = activations.recorder(step) if activations and step.searched else None
            factors = recorder.factors if recorder else None
            run_step(step, writer.write, partial(meter.advance, step.name), factors)
    sync_path(path)


def _checks(
    plan: ConversionPlan, shard: tuple[ConversionStep, ...], path: Path, meter: Meter
) -> list[TensorCheck]:
    """Compare the tensors in the file at `path` with their source."""
    stored = {tensor.name: tensor for tensor in tensors_in(path)}
    converted = source_tensors(stored, plan.config.quantization)
    checks = []
    for step in shard:
        source = step.sources[0] if len(step.sources) == 1 else StackedTensor(step.name, step.sources)
        check = compare(converted[step.name], source, partial(meter.advance, step.name))
        if check.fault:
            raise ConversionError(
                f"{step.name} {check.fault}, as read back from the disk; check disk and memory, and try again"
            )
        checks.append(check)
    return checks
