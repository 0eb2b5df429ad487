"""Bits where they buy most: what rounding each matrix does to predictions, and an allotment by that.

All matrices of a layer are rounded, the rest of the model runs as it is, and the KL divergence of what comes
out says what the layer's bits are worth. Within a layer it is shared out by how much each matrix, rounded
alone, changes the layer's output. What other widths cost is scaled by the error each of them makes in the
weights. One layer of the model is in memory at a time, and a stream of hidden states for each one rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_qwen3.conversion.calibration import Calibration
from mlx_qwen3.conversion.planning import Plan, Step
from mlx_qwen3.conversion.quantize.activations import embedded, load_block, normalised
from mlx_qwen3.conversion.recipes import ROUTER
from mlx_qwen3.conversion.write.step import row_chunks
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import QUANTIZATION_MODES
from mlx_qwen3.model.qwen3 import TransformerBlock

WIDTHS = QUANTIZATION_MODES["affine"][0]
PROBE_BITS = 4  # what a matrix is rounded to while its layer is watched
PROBE_WINDOWS = 2
EVERY = 4  # of how many tokens one's prediction is looked at
EMBEDDING = "model.embed_tokens"
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
    """Each matrix to be quantized, by module path; routers keep what they have. Raises CheckpointError."""
    steps = {
        _path(step): step for step in plan.steps if step.quantization and not _path(step).endswith(ROUTER)
    }
    costs = _costs(plan, calibration.windows[:PROBE_WINDOWS], steps)
    return {path: _sensitivity(step, costs[path]) for path, step in steps.items()}


def _costs(plan: Plan, ids: npt.NDArray[np.int32], steps: Mapping[str, Step]) -> dict[str, float]:
    """KL divergence (nats a token) that comes of rounding each matrix to PROBE_BITS."""
    config, named = plan.original.config, {step.name: step for step in plan.steps}
    hidden = embedded(named[f"{EMBEDDING}.weight"], ids)
    streams: dict[str, mx.array] = {}  # hidden states, by what was rounded on their way
    if EMBEDDING in steps:
        streams[EMBEDDING] = _rounded(hidden, steps[EMBEDDING], PROBE_BITS)
    shares: dict[str, dict[str, float]] = {}
    for index in range(config.num_hidden_layers):
        block = load_block(config, index, named)
        streams = {name: block(x, "causal") for name, x in streams.items()}
        prefix = f"model.layers.{index}."
        inside = {path.removeprefix(prefix): steps[path] for path in steps if path.startswith(prefix)}
        expected = block(hidden, "causal")
        mx.eval(expected, streams)
        shares[prefix] = {}
        for name, step in inside.items():
            with _all_rounded(block, {name: step}):
                shares[prefix][name] = _share(block(hidden, "causal"), expected)
        with _all_rounded(block, inside):
            streams[prefix] = block(hidden, "causal")
            mx.eval(streams[prefix])
        hidden = expected
    return _in_nats(plan, hidden, streams, shares)


def _in_nats(
    plan: Plan,
    hidden: mx.array,
    streams: Mapping[str, mx.array],
    shares: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    """What each stream's predictions lost, shared out over the matrices of its layer."""
    named = {step.name: step for step in plan.steps}
    head = named.get("lm_head.weight", named[f"{EMBEDDING}.weight"])
    norm = named["model.norm.weight"]

    def logits(x: mx.array, bits: int | None = None) -> mx.array:
        rows = normalised(plan.original.config, norm, x[:, ::EVERY]).reshape(-1, x.shape[-1])
        return _logits(head, rows, bits)

    expected = logits(hidden)
    costs = {_path(head): _kl(expected, logits(hidden, PROBE_BITS))}
    for name, stream in streams.items():
        lost = _kl(expected, logits(stream))
        if name == EMBEDDING:
            costs[name] = costs.get(name, 0) + lost  # tied, it is looked up and multiplied with
        else:
            total = sum(shares[name].values()) or 1.0
            costs |= {name + path: lost * share / total for path, share in shares[name].items()}
    return costs


def _logits(head: Step, rows: mx.array, bits: int | None) -> mx.array:
    """`rows` (N, hidden) times the output head, rounded to `bits` if given; a chunk of it in memory."""
    (source,) = head.sources
    parts = []
    for first, count in row_chunks(source):
        matrix = source.read(first, count)
        matrix = matrix if bits is None else _rounded(matrix, head, bits)
        parts.append(rows.astype(mx.float32) @ matrix.astype(mx.float32).T)
        mx.eval(parts[-1])
    return mx.concatenate(parts, axis=-1)


def _kl(expected: mx.array, found: mx.array) -> float:
    """Mean KL divergence of predictions from those expected, from their logits (N, V)."""
    expected, found = (x - mx.logsumexp(x, axis=-1, keepdims=True) for x in (expected, found))
    mean: float = (mx.exp(expected) * (expected - found)).sum(axis=-1).mean().item()  # type: ignore[assignment]
    return max(mean, 0.0)


@contextmanager
def _all_rounded(block: TransformerBlock, steps: Mapping[str, Step]) -> Iterator[None]:
    """The matrices `steps`, by their names within the layer, rounded for the time being."""
    modules = {name: _module(block, name) for name in steps}
    weights = {name: module.weight for name, module in modules.items()}
    for name, module in modules.items():
        module.weight = _rounded(weights[name], steps[name], PROBE_BITS)
    yield
    for name, module in modules.items():
        module.weight = weights[name]


def _module(block: nn.Module, name: str) -> nn.Module:
    for part in name.split("."):
        block = block[part]
    return block


def _sensitivity(step: Step, cost: float) -> Sensitivity:
    """`cost` at PROBE_BITS carried over to all widths."""
    assert step.quantization is not None
    source = step.sources[0]
    rows = source.read(0, min(SAMPLE_ROWS, source.num_rows)).astype(mx.float32)
    errors = {bits: _share(_rounded(rows, step, bits), rows) for bits in WIDTHS}
    scale = cost / max(errors[PROBE_BITS], 1e-30)
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
