"""Memory and speed over a thousand turns in one sliding window.

    python -m benchmarks.turns_endless [--turns 1000] [--window 2048] [--bits 4] [--model demo]

One session with a rotating quantized KV cache asks the model for sums. Each turn records the bytes of the
cache, MLX's active and peak memory, the resident memory of the process, and seconds. Prints figures for each
tenth of the turns.
"""

from __future__ import annotations

import argparse
import random
import time
from statistics import median

import psutil

from mlx_qwen3 import Engine

import mlx.core as mx  # isort: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    rng, process = random.Random(0), psutil.Process()
    rows: list[tuple[float, ...]] = []
    tenth = max(1, options.turns // 10)
    print("| turns | cache | active | resident | peak of a turn | seconds a turn | tokens/s |")
    print("|---|---|---|---|---|---|---|")
    with Engine(options.model, max_kv_size=options.window, kv_bits=options.bits) as engine:
        session = engine.session(thinking=False, sampling={"max_tokens": 16, "seed": 0})
        for turn in range(1, options.turns + 1):
            start = time.perf_counter()
            reply = session.ask(f"what is {rng.randrange(100)}+{rng.randrange(100)}?")
            seconds, stats = time.perf_counter() - start, reply.stats
            sizes = (
                session.cache_info.nbytes,
                mx.get_active_memory(),
                process.memory_info().rss,
                stats.peak_memory,
            )
            rows.append((*sizes, seconds, stats.tokens_per_second))
            if turn % tenth == 0:
                print(f"| {turn + 1 - tenth} to {turn} | {figures(rows[-tenth:])} |", flush=True)


def figures(rows: list[tuple[float, ...]]) -> str:
    """The largest sizes and the median times of `rows`."""
    *sizes, seconds, speed = zip(*rows, strict=True)
    shown = " | ".join(f"{max(values) / 1e6:.2f} MB" for values in sizes)
    return f"{shown} | {median(seconds):.3f} | {median(speed):.0f}"


if __name__ == "__main__":
    main()
