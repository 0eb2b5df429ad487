"""Looks for crashes of the kernels' threads: many short processes that fork, end early, or share the pool.

    python -m benchmarks.stress_pool --runs 300 --model mlx_qwen3/demo

Each run is a fresh process with one of the programs below and one of several numbers of threads. A run fails
if a signal ends it, if it takes more than `--limit` seconds, or if it prints another result than the first
run of its program (the exit status of what it forked included). The last line says how many failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from itertools import islice, product
from pathlib import Path

THREADS = ("", "1", "2", "3", "5", "16")
COMMON = """
import os, random, sys, threading, time
import numpy as np
from mlx_qwen3.backend.native.program import Program
from mlx_qwen3.backend.stored_matrix import multiply_arrays
MODEL = sys.argv[1]
def engine():
    from mlx_qwen3 import Engine
    return Engine(MODEL)
def answer(engine, text="what is 4+5?", tokens=12):
    session = engine.session(thinking=False, sampling={"temperature": 0, "max_tokens": tokens})
    return session.ask(text).answer
def products(times, seed=0):
    draw = np.random.default_rng(seed)
    for _ in range(times):
        m, k, n = (int(draw.integers(1, top)) for top in (40, 300, 200))
        a, b = (draw.standard_normal(s, dtype=np.float32) for s in ((m, k), (k, n)))
        y = np.empty((m, n), np.float32)
        multiply_arrays(a, b, y)
        assert np.abs(y - a @ b).max() < 1e-3, (m, k, n)
"""
PROGRAMS = {
    "answer": "e = engine(); print(answer(e)); e.close()",
    "left open": "e = engine(); print(answer(e))",
    "closed while decoding": """
e = engine()
stream = iter(e.session(sampling={"temperature": 0}).send("count"))
for _ in range(random.randrange(1, 12)):
    next(stream)
e.close()
print("closed")
""",
    "ends while decoding": """
e = engine()
stream = iter(e.session(sampling={"temperature": 0}).send("count"))
for _ in range(random.randrange(1, 12)):
    next(stream)
print("ended")
""",
    "exits from a thread's midst": """
e = engine()
threading.Thread(target=lambda: [answer(e) for _ in range(99)], daemon=True).start()
threading.Thread(target=lambda: products(10**6), daemon=True).start()
time.sleep(random.uniform(0, 0.3))
print("ended")
""",
    "_exit": """
e = engine()
threading.Thread(target=lambda: products(10**6), daemon=True).start()
time.sleep(random.uniform(0, 0.2))
print("ended", flush=True)
os._exit(0)
""",
    "two engines in two threads": """
results = [None, None]
def one(number):
    with engine() as e:
        results[number] = answer(e)
threads = [threading.Thread(target=one, args=(n,)) for n in (0, 1)]
[t.start() for t in threads]; [t.join() for t in threads]
assert results[0] == results[1]
print(results)
""",
    "two engines, one closed": """
a, b = engine(), engine()
stream = iter(a.session().send("count"))
next(stream)
thread = threading.Thread(target=lambda: answer(b))
thread.start()
a.close()
thread.join()
print(answer(b))
b.close()
""",
    "forks after use": """
e = engine()
first = answer(e)
child = os.fork()
if child == 0:
    products(10)
    os._exit(0)
print(first == answer(e), os.waitpid(child, 0)[1])
""",
    "forks while computing": """
products(1)
threads = [threading.Thread(target=products, args=(300, n)) for n in range(2)]
[t.start() for t in threads]
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        products(10)
        os._exit(0)
    children.append(child)
    time.sleep(random.uniform(0, 0.02))
[t.join() for t in threads]
print([os.waitpid(child, 0)[1] for child in children])
""",
    "many callers": """
threads = [threading.Thread(target=products, args=(30, n)) for n in range(6)]
[t.start() for t in threads]; [t.join() for t in threads]
print("right")
""",
    "programs of all lengths": """
x, y = np.linspace(-4, 4, 8 * 4096, dtype=np.float32), np.empty(8 * 4096, np.float32)
expected = np.exp(x)
for number in range(60):
    program = Program()
    sizes = [8 * random.randrange(1, 4096) for _ in range(random.randrange(1, 60))]
    for size in sizes:
        program.exp(x.ctypes.data, y.ctypes.data, size)
    y[:] = 0
    program.run(alone=number % 7 == 0)
    assert np.abs(y[: max(sizes)] / expected[: max(sizes)] - 1).max() < 1e-6
    assert not y[max(sizes) :].any()
print("right")
""",
}


def run(name: str, model: Path, threads: str, limit: float) -> str:
    """What the program printed, or how it failed."""
    environment = {**os.environ, "MLX_QWEN3_THREADS": threads}
    command = [sys.executable, "-X", "faulthandler", "-c", COMMON + PROGRAMS[name], str(model)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"FAILED: not done within {limit:g} s"
    if done.returncode != 0:
        return f"FAILED: exit status {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--model", type=Path, default=Path("mlx_qwen3/demo"))
    parser.add_argument("--limit", type=float, default=180)
    parser.add_argument("--verbose", action="store_true", help="say how long each run took")
    parser.add_argument("--only", choices=PROGRAMS, nargs="*", default=list(PROGRAMS))
    options = parser.parse_args()
    results: dict[str, str] = {}
    failed: Counter[str] = Counter()
    cases = [pair for _ in range(options.runs) for pair in product(THREADS, options.only)]
    started = time.monotonic()
    for number, (threads, name) in enumerate(islice(cases, options.runs), 1):
        began = time.monotonic()
        result = run(name, options.model, threads, options.limit)
        expected = results.setdefault(name, result)
        if result.startswith("FAILED") or result != expected:
            failed[name] += 1
            print(f"{number} {name}, {threads or 'as many as cores'} threads: {result}", flush=True)
        if options.verbose:
            print(f"{number} {name} {threads}: {time.monotonic() - began:.1f} s", flush=True)
    print(
        f"{options.runs} runs in {time.monotonic() - started:.0f} s, {failed.total()} failed: {dict(failed)}"
    )


if __name__ == "__main__":
    main()
