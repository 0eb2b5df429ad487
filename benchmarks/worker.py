"""One measurement in a process of its own: load, prefill, decode; prints one line of JSON.

Both engines run their own public path on the same files and ids: ours through `load_model`,
`prefill` and `decode`; mlx-lm through `load_model` and `generate_step`. Greedy, no tokenizer.
The peer's process never imports mlx_qwen3, which would lend it our BLAS.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

VOCABULARY = 151_000


def ours(folder: Path) -> tuple[Any, Any]:
    """Load with mlx_qwen3; returns the model and a function ids -> iterator of tokens."""
    from mlx_qwen3 import SamplingParams, load_model, make_prompt_cache
    from mlx_qwen3.decode import decode, prefill
    from mlx_qwen3.sampling import Sampler

    model = load_model(folder)

    def generate(ids: list[int]) -> Iterator[int]:
        cache = make_prompt_cache(model)
        for _ in prefill(model, ids[:-1], cache):
            pass
        sampler = Sampler(SamplingParams(temperature=0), model.args.vocab_size)
        yield from decode(model, ids[-1:], cache, sampler)

    return model, generate


def mlx_lm(folder: Path) -> tuple[Any, Any]:
    """Load with mlx-lm; returns the model and a function ids -> iterator of tokens."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)

    def generate(ids: list[int]) -> Iterator[int]:
        for token, _ in generate_step(mx.array(ids), model, max_tokens=-1):
            yield token

    return model, generate


ENGINES = {"mlx-qwen3": ours, "mlx-lm": mlx_lm}


def measure(engine: str, folder: Path, prompt: int, tokens: int) -> dict[str, Any]:
    """Seconds and rates of one run. Prefill counts the time to the first token, as a user meets it."""
    start = time.perf_counter()
    _, generate = ENGINES[engine](folder)
    loaded = time.perf_counter()
    ids = random.Random(0).choices(range(VOCABULARY), k=prompt)
    stream = generate(ids)
    text = [next(stream)]
    first = time.perf_counter()
    text += islice(stream, tokens)
    end = time.perf_counter()
    return {
        "prompt_tokens": prompt,
        "decode_tokens": tokens,
        "load_s": loaded - start,  # imports included
        "ttft_s": first - loaded,
        "prefill_tok_s": prompt / (first - loaded),
        "decode_tok_s": tokens / (end - first),
        **_memory(),
        "text": text[:8],
    }


def _memory() -> dict[str, float]:
    import mlx.core as mx

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on a Mac, else in KiB
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"peak_mlx_gb": mx.get_peak_memory() / 1e9, "peak_resident_gb": resident / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompt", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    options = parser.parse_args()
    print(json.dumps(measure(options.engine, options.folder, options.prompt, options.tokens)))


if __name__ == "__main__":
    main()
