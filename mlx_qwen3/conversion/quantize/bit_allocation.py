"""Allocates bits to matrices by what their rounding costs in the model's predictions.

All matrices of a layer are rounded while the rest of the model keeps its weights. The KL divergence of the
predictions is the cost of the layer. It is divided among the layer's matrices by how much each of them,
rounded alone, changes the layer's output. The cost of other widths is scaled by their error in the weights.
In memory are one layer of the model, and the hidden states of the text for each layer that was rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_qwen3.conversion.calibration import Calibration
from mlx_qwen3.conversion.numerics import kl_divergence
from mlx_qwen3.conversion.planning import ConversionPlan, ConversionStep
from mlx_qwen3.conversion.quantize.activations import embed, final_norm, load_block, submodule
from mlx_qwen3.conversion.recipes import ROUTER
from mlx_qwen3.conversion.source.chunks import row_chunks
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import QUANTIZATION_MODES
from mlx_qwen3.model.qwen3 import TransformerBlock

WIDTHS = QUANTIZATION_MODES["affine"][0]  # bits
PROBE_BITS = 4  # to which matrices are rounded to measure their cost
PROBE_WINDOWS = 2  # of the calibration text
EVERY = 4  # predictions are compared after every so many tokens
SAMPLE_ROWS = 512  # of a matrix, to measure the error of each width
EMBEDDING = "model.embed_tokens"


@dataclass(frozen=True)
class Sensitivity:
    """The cost (nats per token) and the size (bits) of one matrix at each width."""

    cost: Mapping[int, float]
    size: Mapping[int, int]


def allocate_bits(plan: ConversionPlan, calibration: Calibration, target: float) -> dict[str, int]:
    """Bits for each matrix of `plan`, by module path, for a whole of at most `target` bits per weight.

    Raises ConversionError if no allocation reaches `target`.
    """
    return allocate_by(measure_sensitivities(plan, calibration), plan, target)


def allocate_by(
    sensitivities: Mapping[str, Sensitivity], plan: ConversionPlan, target: float
) -> dict[str, int]:
    """Start with the fewest bits, then add bits where each saves most, up to `target`."""
    bits = dict.fromkeys(sensitivities, WIDTHS[0])
    fixed = sum(step.output_bytes * 8 for step in plan.steps if _path(step) not in sensitivities)
    smallest = fixed + sum(matrix.size[WIDTHS[0]] for matrix in sensitivities.values())
    largest = fixed + sum(matrix.size[WIDTHS[-1]] for matrix in sensitivities.values())
    budget = target * plan.num_parameters - smallest
    if budget < 0 or target * plan.num_parameters > largest:
        low, high = (total / plan.num_parameters for total in (smallest, largest))
        raise ConversionError(f"{target:g} bits per weight cannot be reached; give {low:.2f} to {high:.2f}")
    while path := _best_matrix(sensitivities, bits, budget):
        wider = WIDTHS[WIDTHS.index(bits[path]) + 1]
        budget -= sensitivities[path].size[wider] - sensitivities[path].size[bits[path]]
        bits[path] = wider
    return bits


def _best_matrix(
    sensitivities: Mapping[str, Sensitivity], bits: Mapping[str, int], budget: float
) -> str | None:
    """The matrix whose next width saves most for each bit it adds; None if none fits the budget."""
    gains = {}
    for path, matrix in sensitivities.items():
        if bits[path] == WIDTHS[-1]:
            continue
        wider = WIDTHS[WIDTHS.index(bits[path]) + 1]
        extra = matrix.size[wider] - matrix.size[bits[path]]
        if extra <= budget:
            gains[path] = (matrix.cost[bits[path]] - matrix.cost[wider]) / extra
    return max(gains, key=gains.__getitem__) if gains else None


def measure_sensitivities(plan: ConversionPlan, calibration: Calibration) -> dict[str, Sensitivity]:
    """The sensitivity of each matrix to be quantized, by module path, without routers.

    Raises CheckpointError.
    """
    steps = {
        _path(step): step for step in plan.steps if step.quantization and not _path(step).endswith(ROUTER)
    }
    costs = _costs(plan, calibration.windows[:PROBE_WINDOWS], steps)
    return {path: _sensitivity(step, costs[path]) for path, step in steps.items()}


def _costs(
    plan: ConversionPlan, ids: npt.NDArray[np.int32], steps: Mapping[str, ConversionStep]
) -> dict[str, float]:
    """KL divergence (nats per token) that rounding each matrix to PROBE_BITS causes."""
    config, step_of = plan.source.config, {step.name: step for step in plan.steps}
    hidden = embed(step_of[f"{EMBEDDING}.weight"], ids)
    streams: dict[str, mx.array] = {}  # hidden states (windows, tokens, hidden), by the layer rounded
    if EMBEDDING in steps:
        streams[EMBEDDING] = _rounded(hidden, steps[EMBEDDING], PROBE_BITS)
    changes: dict[str, dict[str, float]] = {}  # of a layer's output, by layer and matrix
    for index in range(config.num_hidden_layers):
        block = load_block(config, index, step_of)
        streams = {name: block(x, "causal") for name, x in streams.items()}
        prefix = f"model.layers.{index}."
        inside = {path.removeprefix(prefix): steps[path] for path in steps if path.startswith(prefix)}
        expected = block(hidden, "causal")
        mx.eval(expected, streams)
        changes[prefix] = {}
        for name, step in inside.items():
            with _matrices_rounded(block, {name: step}):
                changes[prefix][name] = _squared_error(block(hidden, "causal"), expected)
        with _matrices_rounded(block, inside):
            streams[prefix] = block(hidden, "causal")
            mx.eval(streams[prefix])
        hidden = expected
    return _divergences(plan, hidden, streams, changes)


def _divergences(
    plan: ConversionPlan,
    hidden: mx.array,
    streams: Mapping[str, mx.array],
    changes: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    """The KL divergence of each stream's predictions, divided among the matrices of its layer."""
    step_of = {step.name: step for step in plan.steps}
    head = step_of.get("lm_head.weight", step_of[f"{EMBEDDING}.weight"])
    norm = step_of["model.norm.weight"]

    def logits(x: mx.array, bits: int | None = None) -> npt.NDArray[np.float32]:
        rows = final_norm(plan.source.config, norm, x[:, ::EVERY]).reshape(-1, x.shape[-1])
        return np.asarray(_logits(head, rows, bits))

    expected = logits(hidden)
    costs = {_path(head): kl_divergence(expected, logits(hidden, PROBE_BITS))}
    for name, stream in streams.items():
        divergence = kl_divergence(expected, logits(stream))
        if name == EMBEDDING:
            costs[name] = costs.get(name, 0) + divergence  # a tied embedding is the output head too
        else:
            total = sum(changes[name].values()) or 1.0
            costs |= {name + path: divergence * change / total for path, change in changes[name].items()}
    return costs


def _logits(head: ConversionStep, rows: mx.array, bits: int | None) -> mx.array:
    """rows (N, hidden) -> logits (N, V) in fp32. Reads the head in chunks, rounded to `bits` if given."""
    (source,) = head.sources
    parts = []
    for first, count in row_chunks(source):
        matrix = source.read(first, count)
        matrix = matrix if bits is None else _rounded(matrix, head, bits)
        parts.append(rows.astype(mx.float32) @ matrix.astype(mx.float32).T)
        mx.eval(parts[-1])
    return mx.concatenate(parts, axis=-1)


@contextmanager
def _matrices_rounded(block: TransformerBlock, steps: Mapping[str, ConversionStep]) -> Iterator[None]:
    """Round the matrices of `steps`, by name within the block, and restore them at the end."""
    modules = {name: submodule(block, name) for name in steps}
    weights = {name: module.weight for name, module in modules.items()}
    for name, module in modules.items():
        module.weight = _rounded(weights[name], steps[name], PROBE_BITS)
    yield
    for name, module in modules.items():
        module.weight = weights[name]


def _sensitivity(step: ConversionStep, cost: float) -> Sensitivity:
    """The sensitivity of a matrix that costs `cost` at PROBE_BITS."""
    assert step.quantization is not None
    source = step.sources[0]
    rows = source.read(0, min(SAMPLE_ROWS, source.num_rows)).astype(mx.float32)
    errors = {bits: _squared_error(_rounded(rows, step, bits), rows) for bits in WIDTHS}
    scale = cost / max(errors[PROBE_BITS], 1e-30)
    overhead = 2 * 8 * step.dtype.size / step.quantization.group_size  # scale and bias, in bits per weight
    size = {bits: round(step.num_parameters * (bits + overhead)) for bits in WIDTHS}
    return Sensitivity({bits: error * scale for bits, error in errors.items()}, size)


def _rounded(weight: mx.array, step: ConversionStep, bits: int) -> mx.array:
    assert step.quantization is not None
    group_size = step.quantization.group_size
    return mx.dequantize(
        *mx.quantize(weight, group_size=group_size, bits=bits), group_size=group_size, bits=bits
    ).astype(weight.dtype)


def _squared_error(changed: mx.array, expected: mx.array) -> float:
    """The squared length of the difference, relative to that of `expected`."""
    difference = (changed.astype(mx.float32) - expected.astype(mx.float32)).square().sum()
    error: float = (difference / expected.astype(mx.float32).square().sum()).item()  # type: ignore[assignment]
    return error


def _path(step: ConversionStep) -> str:
    return step.name.rpartition(".")[0]
