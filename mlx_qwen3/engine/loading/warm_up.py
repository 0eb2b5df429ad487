"""Has a GPU compile its kernels while a model loads, so that the first token does not wait for them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import Sampler


def warm_up(model: Any) -> None:
    """Run one step of `model` on a cache of its own, and draw a token. Does nothing on a CPU."""
    if is_cpu():
        return
    cache = make_prompt_cache(model)
    logits = model(mx.array([[0]], mx.uint32), cache)[0, -1]
    mx.eval(Sampler(SamplingParams(seed=0), logits.shape[-1])(logits))
