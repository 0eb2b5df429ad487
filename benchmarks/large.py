"""A checkpoint of the largest shapes in little memory: made, loaded by the plan, and made to speak.

    MLX_QWEN3_MEMORY=9.3GB python -m benchmarks.large --shape 14b --folder /tmp

Weights are random and written a shard at a time. With `MLX_QWEN3_MEMORY` the plan leaves no room for
fp32 copies of weights, which the CPU makes where it may. Prints what was planned and what was taken.
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

    from mlx_qwen3 import SamplingParams, make_prompt_cache
    from mlx_qwen3.checkpoint.load import load
    from mlx_qwen3.generation.decode import decode, prefill
    from mlx_qwen3.generation.sampling import Sampler

    start = time.perf_counter()
    loaded = load(folder, options.context)
    print(f"loaded in {time.perf_counter() - start:.0f} s; planned: {loaded.plan}")
    model, start = loaded.model, time.perf_counter()
    cache, ids = make_prompt_cache(model), list(range(1, options.prompt + 1))
    for _ in prefill(model, ids[:-1], cache):
        pass
    sampler = Sampler(SamplingParams(temperature=0), model.args.vocab_size)
    tokens = decode(model, ids[-1:], cache, sampler)
    said = [next(tokens) for _ in range(options.tokens)]
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(f"{options.prompt} tokens read and {said} said in {time.perf_counter() - start:.0f} s")
    print(f"peak: {mx.get_peak_memory() / 1e9:.2f} GB of arrays, {resident / 1e9:.2f} GB resident")


if __name__ == "__main__":
    main()
