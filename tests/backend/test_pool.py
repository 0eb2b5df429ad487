"""The pool of threads in processes that fork."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlx_qwen3.backend.switches import has_kernels

pytestmark = pytest.mark.skipif(not has_kernels(), reason="kernels are for Linux CPUs")

FORKS = """
import os, threading
import numpy as np
from mlx_qwen3.backend.native import library, pool
from mlx_qwen3.backend.native.program import Program

def computes():
    x, y = np.linspace(-5, 5, 64, dtype=np.float32), np.zeros(64, np.float32)
    program = Program()
    program.exp(x.ctypes.data, y.ctypes.data, 64)
    program.run()
    return np.abs(y / np.exp(x) - 1).max() < 1e-6

USED_BEFORE
held, done = threading.Event(), threading.Event()

def hold():
    with library._lock, pool._pools_lock:
        held.set()
        done.wait()

threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(0 if computes() else 1)
status = os.waitpid(child, 0)[1]
done.set()
print(status, computes())
"""


@pytest.mark.parametrize("before", ["", "assert computes()"], ids=["at first", "after use"])
def test_a_process_forked_while_another_thread_prepares_the_pool_computes(before: str) -> None:
    program = FORKS.replace("USED_BEFORE", before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["0", "True"], done.stderr
