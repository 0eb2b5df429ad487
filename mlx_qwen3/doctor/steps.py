"""Times tokens as they are decoded, each computed while the one before it is waited for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import mlx.core as mx


def milliseconds_a_token(model: Any, cache: Sequence[Any], steps: int) -> float:
    """The median time of a token of the likeliest text after what `cache` holds."""
    token = mx.array([1], mx.uint32)
    mx.eval(token)
    stamps = [time.perf_counter()]
    for _ in range(steps):
        following = mx.argmax(model(token[None], cache)[0], axis=-1).astype(mx.uint32)
        mx.async_eval(following)  # type: ignore[no-untyped-call]
        mx.eval(token)
        token = following
        stamps.append(time.perf_counter())
    mx.eval(token)
    return 1e3 * median(after - before for before, after in pairwise(stamps))
