"""Bits where they buy most: how much each matrix's rounding disturbs its layer, and an allotment by that.

A matrix is rounded alone, its layer runs on the calibration text, and the change of the layer's output, as a
share of that output, is its sensitivity. The first layers of a model are seen by all that follow, and the
stream they write to is small still, so a share is what compares across layers. What other widths would cost
is scaled by the error that each of them makes in the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.config import QUANTIZATION_MODES
from mlx_qwen3.conversion.activations import embedded, load_block, normalised, read_whole
from mlx_qwen3.conversion.calibration import Calibration, batches
from mlx_qwen3.conversion.planning import Plan, Step
from mlx_qwen3.conversion.recipes import ROUTER
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.qwen3 import TransformerBlock

WIDTHS = QUANTIZATION_MODES["affine"][0]
PROBE_BITS = 4  # what a matrix is rounded to while its layer is watched
PROBE_WINDOWS = 4
SAMPLE_ROWS = 512  # of a matrix, for the error that each width makes


@dataclass(frozen=True)
class Sensitivity:
    """What the rounding of one matrix costs at each width, and how many bits each takes."""

    cost: Mapping[int, float]
    size: Mapping[int, int]


def allot(plan: Plan, calibration: Calibration, target: float) -> dict[str, int]:
    """Bits for each matrix of `plan`, by module path, so that the whole comes to `target` bits a weight.

    Raises ConversionError where no allotment reaches `target`.
    """
    return allot_by(sensitivities(plan, calibration), plan, target)


def allot_by(measured: Mapping[str, Sensitivity], plan: Plan, target: float) -> dict[str, int]:
    """The fewest bits everywhere, then more where a bit saves most, as long as `target` is kept."""
    bits = dict.fromkeys(measured, WIDTHS[0])
    planned = sum(step.output_bytes * 8 for step in plan.steps if _path(step) not in measured)
    spent = planned + sum(layer.size[WIDTHS[0]] for layer in measured.values())
    most = planned + sum(layer.size[WIDTHS[-1]] for layer in measured.values())
    room = target * plan.num_parameters - spent
    if room < 0 or target * plan.num_parameters > most:
        low, high = (total / plan.num_parameters for total in (spent, most))
        raise ConversionError(f"{target:g} bits per weight cannot be reached; give {low:.2f} to {high:.2f}")
    while path := _best_step(measured, bits, room):
        wider = WIDTHS[WIDTHS.index(bits[path]) + 1]
        room -= measured[path].size[wider] - measured[path].size[bits[path]]
        bits[path] = wider
    return bits


def _best_step(measured: Mapping[str, Sensitivity], bits: Mapping[str, int], room: float) -> str | None:
    """The matrix that gains most, for each bit it takes, from the next width; None where none fits."""
    gains = {}
    for path, layer in measured.items():
        if bits[path] == WIDTHS[-1]:
            continue
        wider = WIDTHS[WIDTHS.index(bits[path]) + 1]
        extra = layer.size[wider] - layer.size[bits[path]]
        if extra <= room:
            gains[path] = (layer.cost[bits[path]] - layer.cost[wider]) / extra
    return max(gains, key=gains.__getitem__) if gains else None


def sensitivities(plan: Plan, calibration: Calibration) -> dict[str, Sensitivity]:
    """Each matrix to be quantized, by module path; routers keep what they have.

    One layer is in memory at a time. Raises CheckpointError.
    """
    steps = {
        _path(step): step for step in plan.steps if step.quantization and not _path(step).endswith(ROUTER)
    }
    named = {step.name: step for step in plan.steps}
    few = replace(calibration, windows=calibration.windows[:PROBE_WINDOWS])
    (ids,) = batches(few, PROBE_WINDOWS)
    hidden = embedded(named["model.embed_tokens.weight"], ids)
    result = {}
    for index in range(plan.original.config.num_hidden_layers):
        block = load_block(plan.original.config, index, named)
        prefix = f"model.layers.{index}."
        inside = {path: step for path, step in steps.items() if path.startswith(prefix)}
        expected = block(hidden, "causal")
        mx.eval(expected)
        for path, step in inside.items():
            result[path] = _sensitivity(
                step, _change(block, path.removeprefix(prefix), step, hidden, expected)
            )
        hidden = expected
    head = named.get("lm_head.weight", named["model.embed_tokens.weight"])
    if _path(head) in steps:
        hidden = normalised(plan.original.config, named["model.norm.weight"], hidden)
        result[_path(head)] = _sensitivity(head, _head_change(head, hidden))
    for path, step in steps.items():  # a lookup goes into the stream as it is
        if path not in result:
            result[path] = _sensitivity(step, 1.0, is_share=False)
    return result


def _change(block: TransformerBlock, name: str, step: Step, hidden: mx.array, expected: mx.array) -> float:
    """How much of the layer's output changes when the matrix called `name` is rounded."""
    module: nn.Module = block
    for part in name.split("."):
        module = module[part]
    weight = module.weight
    module.weight = _rounded(weight, step, PROBE_BITS)
    share = _share(block(hidden, "causal"), expected)
    module.weight = weight
    return share


def _head_change(step: Step, hidden: mx.array) -> float:
    rows = read_whole(step)
    rows = rows[:: max(1, rows.shape[0] // 4096)]  # a few thousand tokens stand for all
    return _share(hidden @ _rounded(rows, step, PROBE_BITS).T, hidden @ rows.T)


def _sensitivity(step: Step, change: float, is_share: bool = True) -> Sensitivity:
    """`change` at PROBE_BITS carried over to all widths; not `is_share`: the error in the weights is it."""
    assert step.quantization is not None
    source = step.sources[0]
    rows = source.read(0, min(SAMPLE_ROWS, source.num_rows)).astype(mx.float32)
    errors = {bits: _share(_rounded(rows, step, bits), rows) for bits in WIDTHS}
    scale = change / max(errors[PROBE_BITS], 1e-30) if is_share else change
    overhead = 2 * 8 * step.dtype.size / step.quantization.group_size  # scale and offset
    size = {bits: round(step.num_parameters * (bits + overhead)) for bits in WIDTHS}
    return Sensitivity({bits: error * scale for bits, error in errors.items()}, size)


def _rounded(weight: mx.array, step: Step, bits: int) -> mx.array:
    assert step.quantization is not None
    group_size = step.quantization.group_size
    return mx.dequantize(
        *mx.quantize(weight, group_size=group_size, bits=bits), group_size=group_size, bits=bits
    ).astype(weight.dtype)


def _share(changed: mx.array, expected: mx.array) -> float:
    off = (changed.astype(mx.float32) - expected.astype(mx.float32)).square().sum()
    share: float = (off / expected.astype(mx.float32).square().sum()).item()  # type: ignore[assignment]
    return share


def _path(step: Step) -> str:
    return step.name.rpartition(".")[0]
