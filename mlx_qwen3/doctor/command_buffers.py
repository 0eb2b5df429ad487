"""Measures whether command buffers of another length make decoding faster on this Mac.

Metal starts a command buffer when so many kernels are in it, 40 or 50 by MLX's choice for the chip
(docs/metal.md). MLX reads the variable once in a process, so each length is measured in one of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from mlx_qwen3.backend.device import is_metal
from mlx_qwen3.backend.switches import BUFFER_LENGTHS, BUFFER_VARIABLE

# A token must be faster by this share, twice, or the choice is left to MLX.
LEAST_GAIN = 0.05
LAYERS, STEPS = 28, 48
SECONDS = 30
PROGRAM = f"import {__name__} as c; print(c.token_milliseconds())"

Measure = Callable[[int | None], float]
"""Milliseconds of a token with command buffers of a length; None is MLX's own choice."""


class CommandBuffers:
    """Measures, and keeps the figures: `ms with N` for each length, and the variable if one is better."""

    def __init__(self, measure: Measure | None = None):
        self.figures: dict[str, float | str] = {}
        self._measure = measure

    def check(self) -> Iterator[str]:
        """No length is a fault, so nothing is found."""
        if self._measure is None and (not is_metal() or BUFFER_VARIABLE in os.environ):
            return
        measure = self._measure or _in_a_process
        own = self.figures["ms with MLX's own"] = measure(None)
        times = {length: measure(length) for length in BUFFER_LENGTHS}
        self.figures |= {f"ms with {length}": taken for length, taken in times.items()}
        best = min(times, key=times.__getitem__)
        if _gains(times[best], own) and _gains(measure(best), measure(None)):
            self.figures[BUFFER_VARIABLE] = str(best)
        yield from ()


def _gains(taken: float, own: float) -> bool:
    return taken <= (1 - LEAST_GAIN) * own


def _in_a_process(length: int | None) -> float:
    environment = {name: value for name, value in os.environ.items() if name != BUFFER_VARIABLE}
    environment |= {BUFFER_VARIABLE: str(length)} if length else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=True,
        text=True,
    )
    return float(done.stdout)


def token_milliseconds(layers: int = LAYERS, steps: int = STEPS) -> float:
    """The median time of a token of a small random model with `layers` layers, run ahead by one."""
    import mlx.core as mx

    from mlx_qwen3.cache.prompt_cache import make_prompt_cache
    from mlx_qwen3.doctor.models import BASE, HEADS
    from mlx_qwen3.doctor.steps import milliseconds_a_token
    from mlx_qwen3.model.config import ModelConfig
    from mlx_qwen3.model.prepare import prepare
    from mlx_qwen3.model.qwen3 import Model

    heads, key_heads = HEADS["0.6b"]
    sizes = {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": key_heads}
    model = Model(ModelConfig.from_dict({**BASE, **sizes}))
    model.set_dtype(mx.bfloat16)
    prepare(model)
    return milliseconds_a_token(model, make_prompt_cache(model), steps)
