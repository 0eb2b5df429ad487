"""Estimates how long a conversion takes, by converting a few rows."""

from __future__ import annotations

import time
from dataclasses import replace

import mlx.core as mx

from mlx_qwen3.conversion.calibration import Calibration, batches
from mlx_qwen3.conversion.planning import ConversionPlan, ConversionStep
from mlx_qwen3.conversion.quantize.activations import BLOCK, Activations
from mlx_qwen3.conversion.source.chunks import to_bytes
from mlx_qwen3.conversion.workers import in_order, num_workers
from mlx_qwen3.conversion.write.step import convert_rows

SAMPLE_ROWS = 256


def estimated_seconds(plan: ConversionPlan) -> float:
    """Seconds that `plan` takes to read, calibrate and quantize, at the speed of its largest matrices."""
    groups: dict[str, list[ConversionStep]] = {}
    for step in plan.steps:
        settings = step.quantization.mlx_arguments() if step.quantization else None
        groups.setdefault(f"{settings} {step.searched} {step.dtype}", []).append(step)
    calibrated = plan.calibration is not None
    seconds = sum(
        _seconds_per_weight(max(steps, key=lambda step: step.num_parameters), calibrated)
        * sum(step.num_parameters for step in steps)
        for steps in groups.values()
    )
    return seconds + (_seconds_of_layers(plan, plan.calibration) if plan.calibration else 0)


def _seconds_per_weight(step: ConversionStep, calibrated: bool) -> float:
    """Times one chunk of rows for each worker, twice: the first time also starts the device."""
    source = step.sources[0]
    factors = None
    if calibrated and step.searched:
        starts = range(0, source.shape[-1], BLOCK)
        factors = [mx.eye(min(BLOCK, source.shape[-1] - start)) for start in starts]
        mx.eval(factors)
    count = min(SAMPLE_ROWS, source.num_rows)

    def convert(_: int) -> None:
        for array in convert_rows(source.read(0, count), step, factors):
            to_bytes(array)

    for _ in range(2):
        started = time.perf_counter()
        list(in_order(convert, range(num_workers())))
    return (time.perf_counter() - started) / (num_workers() * count * source.shape[-1])


def _seconds_of_layers(plan: ConversionPlan, calibration: Calibration) -> float:
    """Times one layer on one batch of the text, and multiplies by all layers and batches."""
    first = next(batches(calibration))
    started = time.perf_counter()
    Activations(plan, replace(calibration, windows=first)).advance(0)
    num_batches = len(calibration.windows) / len(first)
    return (time.perf_counter() - started) * num_batches * plan.source.config.num_hidden_layers
