"""Memory and time of attention over a long context, with plain and quantized rows, beside mlx-lm.

    python -m benchmarks.attention [--context 32768] [--queries 256] [--repeat 3]

The heads are those of Qwen3-0.6B (16 query heads, 8 key/value heads, head size 128), with random rows. Each
line shows the memory beyond the KV cache, and the median time. The variants run in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
from mlx_lm.models.base import quantized_scaled_dot_product_attention

from mlx_qwen3.cache.rows import Layout, quantize
from mlx_qwen3.model.attention_kernels import attend
from mlx_qwen3.model.rope import RoPE

HEADS, KEY_HEADS, HEAD_DIM = 16, 8, 128
SCALE = HEAD_DIM**-0.5
Variants = dict[str, Callable[[], mx.array]]


def make_variants(queries: int, context: int) -> Variants:
    """Functions that compute the same attention, by name."""
    q = mx.random.normal((1, HEADS, queries, HEAD_DIM))
    k, v = (mx.random.normal((1, KEY_HEADS, context, HEAD_DIM)) for _ in range(2))
    (k8, v8), (k4, v4) = ([quantize(rows, Layout(64, bits)) for rows in (k, v)] for bits in (8, 4))
    first = k[:, :, :4] * 1
    mask, rope = ("causal" if queries > 1 else None), RoPE(HEAD_DIM, 1e6)
    mx.eval(q, k, v, k8, v8, k4, v4, first)
    return {
        "plain rows, MLX": lambda: mx.fast.scaled_dot_product_attention(q, k, v, scale=SCALE, mask=mask),
        "plain rows": lambda: attend(q, k, v, SCALE, mask),
        "8 bits": lambda: attend(q, k8, v8, SCALE, mask),
        "4 bits": lambda: attend(q, k4, v4, SCALE, mask),
        # mlx-lm scales the queries in place, so it gets a copy.
        "8 bits, mlx-lm": lambda: quantized_scaled_dot_product_attention(q * 1, k8, v8, SCALE, mask, 64, 8),
        "plain rows, rotated on read": lambda: attend(q, rope(k, 0), v, SCALE, mask),
        "(moving 4 first keys)": lambda: rope.shift(first, 256),
    }


def peak(compute: Callable[[], mx.array]) -> float:
    """MiB that one run takes, beyond what was allocated before."""
    mx.clear_cache()
    mx.reset_peak_memory()
    held = mx.get_active_memory()
    mx.eval(compute())
    return (mx.get_peak_memory() - held) / 2**20


def seconds(variants: Variants, repeat: int) -> dict[str, float]:
    """Median seconds of each variant."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeat):
        for name, compute in variants.items():
            start = time.perf_counter()
            mx.eval(compute())
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    variants = make_variants(options.queries, options.context)
    peaks = {name: peak(compute) for name, compute in variants.items()}
    print(f"{options.queries} queries, {options.context:,} rows, {mx.default_device()}")
    for name, taken in seconds(variants, options.repeat).items():
        print(f"{name:28} {peaks[name]:8.1f} MiB {taken * 1e3:10.1f} ms")


if __name__ == "__main__":
    main()
