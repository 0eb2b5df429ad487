"""The threads that run programs: one pool for the process. Between programs its threads sleep."""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache
from typing import Any

import numpy as np

from mlx_qwen3.backend.native import layout, library
from mlx_qwen3.backend.native.layout import Unit
from mlx_qwen3.backend.native.machine_code import kept_for_ever
from mlx_qwen3.backend.threads import num_threads

# How often a thread looks for the next program before it sleeps: a tenth of a millisecond or so. Small, so
# that the threads of a BLAS and of MLX find their cores free.
PATIENCE = 2000


class Pool:
    """Threads that each run their share of a program. The caller is the first of them."""

    def __init__(self, threads: int):
        self.threads = threads
        self._lock = threading.Lock()
        self._state = _State()
        # A thread that comes late looks at operations that are done: their memory is never freed.
        self._operations = kept_for_ever(np.zeros((1024, layout.SLOTS), np.int64))
        if threads > 1:
            _initialize_semaphore(self._state.address + layout.WORD * layout.SEMAPHORE)
        serve = _function("serve")
        for number in range(1, threads):
            arguments = (self._state.address, number, 0, 0)
            # They spend their lives in machine code, without the GIL, and end with the process.
            threading.Thread(target=serve, args=arguments, daemon=True, name=f"mlx-qwen3-{number}").start()

    def run(self, operations: Any, start: int, stop: int) -> None:
        """Run the operations `start` up to `stop` of an array (n, SLOTS) of 64-bit integers."""
        with self._lock:
            count = stop - start
            if count > len(self._operations):
                self._operations = kept_for_ever(np.zeros((count, layout.SLOTS), np.int64))
            self._operations[:count] = operations[start:stop]
            _run(self._state, self._operations, count, self.threads > 1)


class _State:
    """Memory that the threads of a pool share, aligned so that no two words are in one cache line."""

    def __init__(self) -> None:
        line = layout.LINE * layout.WORD
        self._memory = kept_for_ever(np.zeros(layout.STATE_WORDS + layout.LINE, np.int64))
        self.address = -(-self._memory.ctypes.data // line) * line
        self._memory[(self.address - self._memory.ctypes.data) // layout.WORD + layout.PATIENCE] = PATIENCE


def run_alone(operations: Any, start: int, stop: int) -> None:
    """`Pool.run` on the calling thread, beside others that do the same."""
    state = getattr(_local, "state", None)
    if state is None:
        state = _local.state = _State()
    _run(state, operations[start:stop], stop - start, is_shared=False)


def _run(state: _State, operations: Any, count: int, is_shared: bool) -> None:
    _function("run_program")(state.address, operations.ctypes.data, count, is_shared)


@cache
def _function(name: str) -> Any:
    """A function of `kernels/work.py` over four integers."""
    address = library.address_of(Unit("work"), name)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(address)


def _initialize_semaphore(address: int) -> None:
    process = ctypes.CDLL(None, use_errno=True)
    if process.sem_init(ctypes.c_void_p(address), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "sem_init failed")


_local = threading.local()
_pools: dict[int, Pool] = {}
_pools_lock = threading.Lock()


def _after_fork() -> None:
    """In a forked process nothing holds the lock, though a thread may have when its memory was copied."""
    global _pools_lock
    _pools_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def pool() -> Pool:
    """The pool of this process. A forked process makes its own."""
    process = os.getpid()
    if (own := _pools.get(process)) is None:
        with _pools_lock:
            if (own := _pools.get(process)) is None:
                own = _pools[process] = Pool(num_threads())
    return own
