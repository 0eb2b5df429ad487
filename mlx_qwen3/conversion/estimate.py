"""How long a conversion will take, from a few rows of it done in earnest and thrown away."""

from __future__ import annotations

import time

from mlx_qwen3.conversion.planning import Plan, Step
from mlx_qwen3.conversion.stream import convert_rows, to_bytes

SAMPLE_ROWS = 256


def estimated_seconds(plan: Plan) -> float:
    """Seconds to read, quantize and hand over all of `plan`, at the speed of its largest matrices."""
    kinds: dict[str, list[Step]] = {}
    for step in plan.steps:
        settings = step.quantization.settings() if step.quantization else None
        kinds.setdefault(f"{settings} {step.searched} {step.dtype}", []).append(step)
    return sum(
        _seconds_per_weight(max(steps, key=lambda step: step.num_parameters))
        * sum(step.num_parameters for step in steps)
        for steps in kinds.values()
    )


def _seconds_per_weight(step: Step) -> float:
    """The second of two tries: the first one also starts the device."""
    for _ in range(2):
        started = time.perf_counter()
        source = step.sources[0]
        rows = source.read(0, min(SAMPLE_ROWS, source.num_rows))
        for array in convert_rows(rows, step):
            to_bytes(array)
    return (time.perf_counter() - started) / rows.size
