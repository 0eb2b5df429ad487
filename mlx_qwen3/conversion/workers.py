"""How a matrix is worked on: on a CPU several chunks at once, a thread a core, and sums by numpy."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import is_cpu

Item = TypeVar("Item")
Result = TypeVar("Result")
Doubles = np.ndarray[Any, np.dtype[np.float64]]

# MLX's CPU backend runs most operations on one core; a GPU is kept busy by one chunk.
WORKERS = min(8, os.cpu_count() or 1) if is_cpu() else 1
# glibc keeps free memory of up to twice the largest block that it was ever given back. The rest goes to
# Linux, which clears it anew when it is asked for again: a tenth of the time of a comparison.
LARGE_BLOCK = 16 * 2**20


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`work` of each item, in their order, done by several threads that are a few items ahead.

    An array of MLX's belongs to the thread that made it until it is computed: `work` takes and returns
    computed ones. What it raises is raised here.
    """
    if WORKERS == 1:
        yield from map(work, items)
        return
    ahead: deque[Future[Result]] = deque()
    try:
        for item in items:
            ahead.append(_pool().submit(work, item))
            if len(ahead) > WORKERS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:  # left early: what has begun ends by itself
        for future in ahead:
            future.cancel()


@cache
def _pool() -> ThreadPoolExecutor:
    """One for the whole process: MLX keeps what it sets up for a thread beyond the thread's end."""
    np.empty(LARGE_BLOCK, np.uint8)  # given back at once
    return ThreadPoolExecutor(WORKERS, thread_name_prefix="conversion")


def dots(a: mx.array, b: mx.array) -> Doubles:
    """The product of each row of `a` (rows, width) with that of `b`, both fp32 -> (rows,).

    On a CPU numpy takes a fifth of MLX's time for such sums.
    """
    sums: Any = (a * b).sum(axis=-1) if not is_cpu() else np.einsum("ij,ij->i", np.asarray(a), np.asarray(b))
    return np.array(sums, np.float64)
