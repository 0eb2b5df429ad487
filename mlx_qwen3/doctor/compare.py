"""How far results may be from the reference, and feeding a model in steps of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.model.qwen3 import Model

# Distance from the reference, as a share of its size: of fp32 on a CPU, of 16-bit numbers on a GPU, and
# beside these what a KV cache of 8 or 4 bits may add.
FP32_ERROR, HALF_ERROR = 2e-3, 0.06
CACHE_ERROR = {None: 0.0, 8: 0.1, 4: 1.0}


def allowed(bits: int | None = None) -> float:
    """The distance allowed on this device, with a KV cache of so many bits."""
    return (FP32_ERROR if is_cpu() else HALF_ERROR) + CACHE_ERROR[bits]


def distance(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest distance of a row of `got` (L, V) from that of `expected`, as a share of the row's size."""
    if got.shape != expected.shape or not np.isfinite(got).all():
        return float("inf")
    difference = np.linalg.norm(got - expected, axis=-1) / (np.linalg.norm(expected, axis=-1) + 1e-9)
    return float(difference.max())


def fed(model: Model, ids: Sequence[int], sizes: Sequence[int], **options: Any) -> NDArray[Any]:
    """Logits (L, V) of `ids`, fed so many at a time; the last size is repeated. options: of the cache."""
    cache = make_prompt_cache(model, **options)
    outputs, start, step = [], 0, 0
    while start < len(ids):
        size = sizes[min(step, len(sizes) - 1)]
        outputs.append(model(mx.array([list(ids[start : start + size])], mx.uint32), cache)[0])
        start, step = start + size, step + 1
    return as_numpy(mx.concatenate(outputs))


def as_numpy(array: mx.array) -> NDArray[Any]:
    """An array in fp32, as numpy's."""
    return np.array(array.astype(mx.float32))


def drawn_ids(count: int, vocabulary: int, seed: int = 0) -> list[int]:
    """Random token ids."""
    ids: list[int] = np.random.default_rng(seed).integers(0, vocabulary, count).tolist()
    return ids
