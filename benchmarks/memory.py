"""Peak memory of a long prompt beside mlx-lm on the same checkpoint, with plain, 8-bit and 4-bit KV caches.

    python -m benchmarks.memory [--layers 2] [--chunk 512] [--context 8192 32768]

The checkpoint has the shape of Qwen3-0.6B in 4 bits, with fewer layers. Memory peaks in the last chunk of a
prompt. So each line is a fresh process that fills the cache with random rows up to that chunk, prefills it
and decodes a token. On a CPU both engines compute in fp32, ours without the fp32 copies of weights that it
makes if memory allows. Prints a table and draws docs/memory.png: the peak, and the memory beyond weights
and cache.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BITS = (16, 8, 4)
GROUP_SIZE = 64
ENGINES = ("mlx-qwen3", "mlx-lm")
MODELS = Path("models")
PLOT = Path("docs") / "memory.png"
FILL = 2048  # rows of the cache filled at once


def load_ours(folder: Path, bits: int) -> tuple[Any, list[Any]]:
    from mlx_qwen3 import load_model, make_prompt_cache

    model = load_model(folder)
    return model, make_prompt_cache(model, bits=None if bits == 16 else bits, group_size=GROUP_SIZE)


def load_theirs(folder: Path, bits: int) -> tuple[Any, list[Any]]:
    import mlx.core as mx
    from mlx_lm.models.cache import KVCache, QuantizedKVCache
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    if mx.default_device() == mx.Device(mx.cpu):
        model.set_dtype(mx.float32)
    kinds = [KVCache() if bits == 16 else QuantizedKVCache(GROUP_SIZE, bits) for _ in model.layers]
    return model, kinds


def measure(engine: str, folder: Path, bits: int, context: int, chunk: int) -> dict[str, Any]:
    """Bytes (peak, cache, beyond both) and seconds of the last chunk of a prompt of `context` tokens."""
    model, cache = (load_ours if engine == "mlx-qwen3" else load_theirs)(folder, bits)
    import mlx.core as mx

    from mlx_qwen3.cache.random_rows import fill

    fill(model, cache, context - chunk, FILL)
    mx.reset_peak_memory()
    start_time = time.perf_counter()
    feed(model, cache, chunk)
    seconds, peak = time.perf_counter() - start_time, mx.get_peak_memory()
    held = sum(layer.nbytes for layer in cache)
    weights = mx.get_active_memory() - held
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    work = peak - held - weights
    return {"peak": peak, "cache": held, "work": work, "resident": resident, "seconds": seconds}


def feed(model: Any, cache: list[Any], chunk: int) -> None:
    """Prefill the last `chunk` tokens of a prompt, and decode one token."""
    import mlx.core as mx

    ids = mx.random.randint(0, 1000, (1, chunk))
    getattr(model, "hidden_states", model)(ids, cache)  # mlx-lm's logits are lazy and never evaluated
    mx.eval([layer.state for layer in cache])
    mx.clear_cache()
    mx.eval(model(ids[:, :1], cache))


def run(folder: Path, engine: str, bits: int, context: int, chunk: int) -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory", "--worker", engine, str(folder)]
    command += ["--bits", str(bits), "--context", str(context), "--chunk", str(chunk)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"engine": engine, "bits": bits, "context": context, **result}


def table(results: list[dict[str, Any]]) -> str:
    """A row for each engine, context and bits, in MB, in Markdown."""
    lines = ["| tokens | KV | engine | peak | of it cache | beyond weights and cache | resident | seconds |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for r in results:
        sizes = " | ".join(f"{r[key] / 1e6:,.0f} MB" for key in ("peak", "cache", "work", "resident"))
        bits = "plain" if r["bits"] == 16 else f"{r['bits']} bits"
        lines.append(f"| {r['context']:,} | {bits} | {r['engine']} | {sizes} | {r['seconds']:.1f} |")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    contexts = sorted({r["context"] for r in results})
    figure, axes = pyplot.subplots(1, len(contexts), figsize=(9, 3.6), squeeze=False)
    for place, context in zip(axes[0], contexts, strict=True):
        for offset, engine in enumerate(ENGINES):
            mine = [r for r in results if r["context"] == context and r["engine"] == engine]
            at = [BITS.index(r["bits"]) + 0.4 * offset for r in mine]
            place.bar(at, [r["cache"] / 1e6 for r in mine], 0.38, color="0.75")
            bottom = [r["cache"] / 1e6 for r in mine]
            place.bar(at, [r["work"] / 1e6 for r in mine], 0.38, bottom, label=engine)
        place.set_xticks([0.2, 1.2, 2.2], ["plain", "8 bits", "4 bits"])
        place.set(title=f"{context:,} tokens", ylabel="MB beyond weights (grey: cache)")
        place.legend()
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--context", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--bits", type=int, nargs="+", default=BITS)
    parser.add_argument("--worker", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        engine, folder = options.worker
        print(json.dumps(measure(engine, Path(folder), options.bits[0], options.context[0], options.chunk)))
        return
    from mlx_qwen3.bench.shapes import make_checkpoint

    folder = make_checkpoint("0.6b", 4, MODELS, layers=options.layers)
    results = []
    for context in options.context:
        for bits in options.bits:
            for engine in ENGINES:
                results.append(run(folder, engine, bits, context, options.chunk))
                print(table(results[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(results))
    plot(results)


if __name__ == "__main__":
    main()
