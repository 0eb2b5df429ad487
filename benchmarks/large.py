"""Runs a large shape in little memory: makes the checkpoint, loads it by the memory plan, and generates.

    MLX_QWEN3_MEMORY=9.3GB python -m benchmarks.large --shape 14b --folder /tmp

The weights are random, and written a shard at a time. `MLX_QWEN3_MEMORY` limits the plan, so that it leaves
no memory for fp32 copies of weights, which the CPU would make. Prints the plan and the measured peaks.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS
from mlx_qwen3.bench.shapes import SHAPES, make_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="14b")
    parser.add_argument("--folder", type=Path, default=Path("models"))
    parser.add_argument("--make", action="store_true", help="only write the checkpoint")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=4)
    options = parser.parse_args()
    folder = make_checkpoint(options.shape, 4, options.folder)
    if options.make:
        return
    import mlx.core as mx

    from mlx_qwen3 import SamplingParams
    from mlx_qwen3.cache.prompt_cache import PromptCache
    from mlx_qwen3.checkpoint.load import load
    from mlx_qwen3.generation.decode import decode
    from mlx_qwen3.generation.sampling import Sampler

    start = time.perf_counter()
    loaded = load(folder, options.context)
    print(f"loaded in {time.perf_counter() - start:.0f} s; planned: {loaded.plan}")
    model, start = loaded.model, time.perf_counter()
    ids = list(range(1, options.prompt + 1))
    sampler = Sampler(SamplingParams(temperature=0), model.args.vocab_size)
    tokens = decode(model, ids, PromptCache(model), sampler)
    generated = [next(tokens) for _ in range(options.tokens)]
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(
        f"{options.prompt} tokens prefilled and {generated} generated in {time.perf_counter() - start:.0f} s"
    )
    print(f"peak: {mx.get_peak_memory() / 1e9:.2f} GB of arrays, {resident / 1e9:.2f} GB resident")


if __name__ == "__main__":
    main()
