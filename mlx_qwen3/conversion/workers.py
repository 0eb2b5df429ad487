"""Runs the chunks of a matrix on several threads on a CPU, and one after another on a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.backend.threads import num_threads

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS = 8
# glibc keeps free memory up to twice the largest block that was ever freed, and returns the rest to Linux,
# which clears it when it is allocated again. That took a tenth of the time of a comparison.
LARGE_BLOCK = 16 * 2**20


def num_workers() -> int:
    """Chunks worked on at once: MLX runs most CPU operations on one core, and one chunk keeps a GPU busy."""
    return min(MAX_WORKERS, num_threads()) if is_cpu() else 1


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields `work(item)` for each item in order. Threads work a few items ahead.

    An MLX array that is not evaluated belongs to its thread, so `work` takes and returns evaluated arrays.
    An exception of `work` is raised here.
    """
    ahead_limit = num_workers()
    if ahead_limit == 1:
        yield from map(work, items)
        return
    ahead: deque[Future[Result]] = deque()
    try:
        for item in items:
            ahead.append(_pool().submit(work, item))
            if len(ahead) > ahead_limit:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:  # also when the caller stops early; work that has started runs to its end
        for future in ahead:
            future.cancel()


@cache
def _pool() -> ThreadPoolExecutor:
    """One pool for the process: MLX keeps its state of a thread after the thread has ended."""
    np.empty(LARGE_BLOCK, np.uint8)  # freed at once
    return ThreadPoolExecutor(num_workers(), thread_name_prefix="conversion")
