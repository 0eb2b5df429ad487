"""Time of decoding by context length: does it grow only with the bytes of keys and values?

    python -m benchmarks.context [--plot docs/context.svg]

A model with 0.6B's heads and a few layers decodes after caches filled with random rows. The contexts run in
turn. Of each one's times the 20 % quantile counts, since slower ones were disturbed. Prints how far each time
is from a line fitted to the bytes of keys and values, and that line's time at no context.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import numpy as np

from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.checkpoint import FAMILY
from mlx_qwen3.generation.decode import decode
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import Sampler
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.prepare import compute_dtype, prepare
from mlx_qwen3.model.qwen3 import Model

CONTEXTS = (1024, 2048, 4096, 8192, 16384)
WARM_UP = 3


def small_model(layers: int) -> Model:
    """0.6B with fewer layers and a small vocabulary."""
    raw = {**FAMILY["0.6b"].shape.config_json(), "num_hidden_layers": layers, "vocab_size": 1024}
    model = Model(ModelConfig.from_dict(raw))
    model.set_dtype(compute_dtype(mx.bfloat16))
    mx.eval(model.parameters())
    prepare(model)
    return model


def decoding(model: Model, context: int) -> tuple[Iterator[int], int]:
    """Decoding after `context` random rows, and the bytes of these rows."""
    config, cache = model.args, PromptCache(model)
    shape = (1, config.num_key_value_heads, context, config.head_dim)
    for layer in cache.layers:
        rows = [mx.random.normal(shape).astype(compute_dtype(mx.bfloat16)) for _ in range(2)]
        layer.update_and_fetch(*rows)
        mx.eval(layer.state)
    nbytes = 2 * len(cache.layers) * rows[0].nbytes
    cache.extend([0] * context)
    sampler = Sampler(SamplingParams(temperature=0), config.vocab_size)
    return decode(model, [*cache.ids, 1], cache, sampler), nbytes


def measure(layers: int, tokens: int, clock: Callable[[], float]) -> dict[int, tuple[float, int]]:
    """Context -> (seconds per token, bytes of keys and values)."""
    model = small_model(layers)
    streams = {context: decoding(model, context) for context in CONTEXTS}
    times: dict[int, list[float]] = {context: [] for context in CONTEXTS}
    for stream, _ in streams.values():
        list(islice(stream, WARM_UP))
    for _ in range(tokens):
        for context, (stream, _) in streams.items():
            start = clock()
            next(stream)
            times[context].append(clock() - start)
    return {context: (float(np.quantile(times[context], 0.2)), streams[context][1]) for context in CONTEXTS}


def draw(times: dict[int, tuple[float, int]], line: np.ndarray, path: Path) -> None:
    """Draw the times and the line through them."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    seconds, nbytes = (np.array(values) for values in zip(*times.values(), strict=True))
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(
        nbytes / 1e6, 1e3 * np.polyval(line, nbytes), "--", color="#999999", label="line through the bytes"
    )
    axes.plot(nbytes / 1e6, 1e3 * seconds, "o", color="#6f42c1", label="a token")
    for context, (second, size) in times.items():
        axes.annotate(f"{context:,}", (size / 1e6, 1e3 * second), xytext=(4, -12), textcoords="offset points")
    axes.set(xlabel="MB of keys and values", ylabel="ms", ylim=(0, None), title="Time of a token by context")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--cpu-time", action="store_true", help="measure CPU time, on a busy machine")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    times = measure(
        options.layers, options.tokens, time.process_time if options.cpu_time else time.perf_counter
    )
    seconds, nbytes = (np.array(values) for values in zip(*times.values(), strict=True))
    line = np.polyfit(nbytes, seconds, 1)
    for context, (second, size) in times.items():
        off = second / np.polyval(line, size) - 1
        print(f"{context:7,} tokens, {size / 1e6:6.1f} MB: {1e3 * second:7.2f} ms, {off:+.1%} off the line")
    print(f"{1e3 * line[1]:.2f} ms and {1 / line[0] / 1e9:.1f} GB/s of keys and values")
    if options.plot:
        draw(times, line, options.plot)


if __name__ == "__main__":
    main()
