"""A thousand turns in one window: does memory stay flat, and speed?

    python -m benchmarks.turns_endless [--turns 1000] [--window 2048] [--bits 4] [--model demo]

One session asks the model for sums, with a rotating quantized cache and no end. Every turn is measured:
the cache's bytes, MLX's active and peak memory, the process's resident memory, the turn's seconds.
Prints the figures of each tenth of the turns.
"""

from __future__ import annotations

import argparse
import random
import time
from statistics import median

import psutil

from mlx_qwen3 import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    rng, process = random.Random(0), psutil.Process()
    rows = []
    with Engine(options.model, max_kv_size=options.window, kv_bits=options.bits) as engine:
        import mlx.core as mx

        session = engine.session(thinking=False, sampling={"max_tokens": 16, "seed": 0})
        for _ in range(options.turns):
            start = time.perf_counter()
            reply = session.ask(f"what is {rng.randrange(100)}+{rng.randrange(100)}?")
            seconds = time.perf_counter() - start
            held = mx.get_active_memory(), process.memory_info().rss
            speed = reply.stats.tokens_per_second
            rows.append((session.cache_bytes, *held, seconds, speed, reply.stats.peak_memory))
    print("| turns | cache | active | resident | peak of a turn | seconds a turn | tokens/s |")
    print("|---|---|---|---|---|---|---|")
    step = max(1, len(rows) // 10)
    for first in range(0, len(rows), step):
        cache, active, resident, seconds, speed, peak = zip(*rows[first : first + step], strict=True)
        sizes = " | ".join(f"{max(values) / 1e6:.2f} MB" for values in (cache, active, resident, peak))
        print(f"| {first + 1} to {first + step} | {sizes} | {median(seconds):.3f} | {median(speed):.0f} |")


if __name__ == "__main__":
    main()
