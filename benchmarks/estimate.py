"""The memory plan's estimate beside the measured peak, by model, bits, context and KV cache.

    python -m benchmarks.estimate

Each line is a fresh process. It loads a checkpoint with random weights, a family shape and fewer layers,
fills the KV cache with random rows up to the last chunk of a prompt, prefills that chunk and decodes a
token. The peak includes loading.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# shape, layers, bits of the weights; context, window, bits of the KV cache
Case = tuple[str, int, int, int, int | None, int | None]
CASES: list[Case] = [
    ("0.6b", 4, 4, 2048, None, None),
    ("0.6b", 4, 4, 8192, None, None),
    ("0.6b", 4, 4, 32768, None, None),
    ("0.6b", 4, 4, 32768, None, 8),
    ("0.6b", 4, 4, 32768, None, 4),
    ("0.6b", 4, 4, 32768, 4096, None),
    ("0.6b", 8, 16, 8192, None, None),
    ("0.6b", 8, 16, 8192, None, 8),
    ("1.7b", 3, 4, 16384, None, 8),
    ("4b", 2, 4, 16384, None, None),
    ("tiny-moe", 4, 4, 32768, None, None),
    ("tiny-moe", 4, 4, 32768, None, 4),
]
CHUNK = 256


def measure(folder: Path, case: Case) -> dict[str, Any]:
    """Estimated and measured bytes of one case."""
    from mlx_qwen3 import make_prompt_cache  # isort: skip  # before mlx.core

    import mlx.core as mx

    from benchmarks.memory import FILL, feed
    from mlx_qwen3.cache.config import CacheConfig
    from mlx_qwen3.cache.random_rows import fill
    from mlx_qwen3.checkpoint.load import load

    *_, context, window, bits = case
    loaded = load(folder, context, CacheConfig(max_size=window, bits=bits))
    cache = make_prompt_cache(loaded.model, max_size=window, bits=bits)
    fill(loaded.model, cache, context - CHUNK - 1, FILL)
    feed(loaded.model, cache, CHUNK)
    plan = loaded.plan
    return {"estimated": plan.estimate.total, "measured": mx.get_peak_memory()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=Path("models"))
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measure(options.folder, CASES[options.case])))
        return
    from mlx_qwen3.bench.shapes import make_checkpoint

    print("| shape | layers | weights | tokens | KV | estimated | measured | difference |")
    print("|---|---|---|---|---|---|---|---|")
    for number, (shape, layers, weights, context, window, bits) in enumerate(CASES):
        folder = make_checkpoint(shape, weights, options.folder, layers=layers)
        command = [sys.executable, "-m", "benchmarks.estimate", "--case", str(number)]
        command += ["--folder", str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        sizes = json.loads(done.stdout.splitlines()[-1])
        kv = ("plain" if bits is None else f"{bits} bits") + (f", window {window:,}" if window else "")
        estimated, measured = sizes["estimated"], sizes["measured"]
        shown = f"{estimated / 1e6:,.0f} MB | {measured / 1e6:,.0f} MB | {estimated / measured - 1:+.1%}"
        print(f"| {shape} | {layers} | {weights} bits | {context:,} | {kv} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
