"""Sampling one token from Qwen3's vocabulary: time beside mlx-lm, distribution beside transformers.

    python -m benchmarks.sampling

Times are from logits to a token, as in each engine's decode loop (mlx-lm's computes log probabilities first).
Both run in one process, in turn; medians. If torch and transformers are installed, the filtered distributions
are compared with those of transformers, for logits of several spreads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import numpy as np

from mlx_qwen3.generation.filters import filter_logits
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import Sampler

VOCABULARY = 151_936
PARAMS = SamplingParams()  # Qwen's for thinking: temperature 0.6, top_p 0.95, top_k 20
WARM_UP = 3
Step = Callable[[mx.array], mx.array]


def steps() -> dict[str, Step]:
    """The function from logits (V,) to a token, of each engine."""
    from mlx_lm.sample_utils import make_sampler

    theirs = make_sampler(PARAMS.temperature, PARAMS.top_p, top_k=PARAMS.top_k)

    def mlx_lm(logits: mx.array) -> mx.array:
        rows = logits[None]
        return theirs(rows - mx.logsumexp(rows, keepdims=True))

    return {"mlx-qwen3": Sampler(PARAMS, VOCABULARY), "mlx-lm": mlx_lm}


def times(repeat: int, dtype: mx.Dtype) -> dict[str, list[float]]:
    """Milliseconds of each step, with the engines in turn."""
    engines = steps()
    milliseconds: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(WARM_UP + repeat):
        logits = mx.random.normal((VOCABULARY,), scale=3, key=mx.random.key(number)).astype(dtype)
        mx.eval(logits)
        for name, step in engines.items():
            start = time.perf_counter()
            mx.eval(step(logits))
            if number >= WARM_UP:
                milliseconds[name].append(1e3 * (time.perf_counter() - start))
    return milliseconds


def farthest_from_transformers() -> float | None:
    """The largest difference in a token's probability; None if transformers is not installed."""
    try:
        import torch
        from transformers import generation
    except ImportError:
        return None
    warpers = [
        generation.TemperatureLogitsWarper(PARAMS.temperature),
        generation.TopKLogitsWarper(PARAMS.top_k),
        generation.TopPLogitsWarper(PARAMS.top_p),
    ]
    differences = []
    for number, spread in enumerate((0.5, 1, 2, 4, 8)):
        logits = np.random.default_rng(number).standard_normal(VOCABULARY).astype(np.float32) * spread
        scores = torch.tensor(logits)[None]
        for warper in warpers:
            scores = warper(None, scores)
        ids, kept = filter_logits(mx.array(logits), PARAMS)
        ours = np.zeros(VOCABULARY)
        ours[np.array(ids)] = np.array(mx.softmax(kept))
        differences.append(np.abs(ours - torch.softmax(scores, -1)[0].numpy()).max())
    return float(max(differences))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=50)
    options = parser.parse_args()
    for dtype in (mx.float32, mx.bfloat16):
        medians = {name: median(values) for name, values in times(options.repeat, dtype).items()}
        ours, theirs = medians.values()
        cells = ", ".join(f"{name} {value:.2f} ms" for name, value in medians.items())
        print(f"{str(dtype).removeprefix('mlx.core.'):9} {cells}: {theirs / ours:.1f}x")
    difference = farthest_from_transformers()
    result = "transformers is not installed" if difference is None else f"differ by {difference:.0e} at most"
    print(f"probabilities and transformers': {result}")


if __name__ == "__main__":
    main()
