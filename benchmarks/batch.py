"""Throughput by batch size, beside mlx_lm's BatchGenerator on the same files and prompts.

    python -m benchmarks.batch --shape 0.6b --layers 4 --sizes 1 2 4 8 16 --prompt 32 --tokens 16
    python -m benchmarks.batch --model mlx_qwen3/demo --texts 32 --shared 64

Each size gets `--texts` prompts (by default as many as the size). A prompt has `--shared` tokens that all
prompts begin with, then 0.5 to 1.5 times `--prompt` of its own; its answer has 0.5 to 1.5 times `--tokens`.
Sampling is greedy. Each run is a fresh process of one engine that measures all sizes, and the engines run in
turn. The table has medians: generated tokens per second, prefill included, and the share of the time until
every sequence had its first token.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

Prompts = list[list[int]]
Limits = list[int]
Generate = Callable[
    [Prompts, Limits, int], Iterator[list[int]]
]  # yields the prompts' numbers of each step's tokens


def ours(folder: Path) -> Generate:
    from mlx_qwen3 import SamplingParams, load_model
    from mlx_qwen3.cache.prefix_pool import PrefixPool
    from mlx_qwen3.cache.prompt_cache import PromptCache
    from mlx_qwen3.generation.decode import SimpleSequence, decode_together
    from mlx_qwen3.generation.sampling import Sampler

    model = load_model(folder)
    greedy = SamplingParams(temperature=0)

    class Sharing(SimpleSequence):
        """A sequence that copies what another one has prefilled, as an engine's do."""

        def __init__(self, pool: PrefixPool, ids: list[int], limit: int):
            super().__init__(ids, Sampler(greedy, model.args.vocab_size), PromptCache(model), limit)
            self._pool = pool

        def open(self, ids: Any) -> None:
            self.cache = self._pool.find(ids, None) or PromptCache(model)

        def prefilled(self, processed: int, total: int) -> None:
            if processed == total and self.cache is not None:
                self._pool.add(self.cache, None)

    def generate(prompts: Prompts, limits: Limits, size: int) -> Iterator[list[int]]:
        pool = PrefixPool(10**9)
        texts = [Sharing(pool, ids, limit) for ids, limit in zip(prompts, limits, strict=True)]
        numbers = {id(text): number for number, text in enumerate(texts)}
        longest_first = sorted(texts, key=lambda text: -len(text.prompt_ids))
        for tokens in decode_together(model, longest_first, size):
            yield [numbers[id(text)] for text, _ in tokens]

    return generate


def mlx_lm(folder: Path) -> Generate:
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)

    def generate(prompts: Prompts, limits: Limits, size: int) -> Iterator[list[int]]:
        batch = BatchGenerator(model, completion_batch_size=size, prefill_batch_size=min(size, 8))
        numbers = {uid: n for n, uid in enumerate(batch.insert(prompts, limits))}
        while responses := batch.next_generated():
            yield [numbers[response.uid] for response in responses]
        batch.close()

    return generate


ENGINES = {"mlx-qwen3": ours, "mlx-lm": mlx_lm}


def measure(generate: Generate, size: int, options: argparse.Namespace) -> dict[str, float]:
    """Of one batch size: seconds in total and until every sequence had a token, tokens, memory."""
    import mlx.core as mx

    prompts, limits = work(size, options)
    mx.reset_peak_memory()
    base, seen, tokens = mx.get_active_memory(), set[int](), 0
    clock = time.process_time if options.cpu_time else time.perf_counter
    start = first = clock()
    for numbers in generate(prompts, limits, size):
        tokens += len(numbers)
        if not seen.issuperset(numbers):
            seen.update(numbers)
            first = clock()
    seconds = clock() - start
    assert tokens == sum(limits)
    memory = (mx.get_peak_memory() - base) / 1e6
    return {"seconds": seconds, "first": first - start, "tokens": tokens, "memory_mb": memory}


def work(size: int, options: argparse.Namespace) -> tuple[Prompts, Limits]:
    """Prompts, and how many tokens to generate for each; the same for every engine."""
    draw = random.Random(size)

    def about(count: int) -> int:
        return draw.randint(max(1, count // 2), count + count // 2)

    texts = options.texts or size
    shared = [draw.randrange(options.vocabulary) for _ in range(options.shared)]
    prompts = [
        shared + [draw.randrange(options.vocabulary) for _ in range(about(options.prompt))]
        for _ in range(texts)
    ]
    return prompts, [about(options.tokens) for _ in range(texts)]


def worker(engine: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure all sizes in this process, after a short batch to warm up."""
    generate = ENGINES[engine](options.model)
    for _ in generate([[1, 2, 3], [4, 5]], [2, 2], 2):
        pass
    return {str(size): measure(generate, size, options) for size in options.sizes}


def run(engine: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """`worker` in a fresh process, run by path: importing mlx_qwen3 would give mlx-lm our BLAS."""
    command = [sys.executable, __file__, "--worker", engine, "--model", str(options.model)]
    for name in ("prompt", "tokens", "shared", "texts", "vocabulary"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--sizes", *map(str, options.sizes), *(["--cpu-time"] if options.cpu_time else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(runs: dict[str, list[dict[str, dict[str, float]]]], sizes: list[int]) -> str:
    lines = [f"{'size':>5}" + "".join(f"{engine:>34}" for engine in runs) + f"{'ratio':>8}"]
    for size in sizes:
        rates, cells = [], ""
        for results in runs.values():
            of_size = [result[str(size)] for result in results]
            rates.append(median(one["tokens"] / one["seconds"] for one in of_size))
            first = median(one["first"] / one["seconds"] for one in of_size)
            memory = median(one["memory_mb"] for one in of_size)
            cells += f"{f'{rates[-1]:.2f} tok/s, {first:.0%}, {memory:.0f} MB':>34}"
        ratio = f"{rates[0] / rates[1]:.2f}x" if len(rates) == 2 else ""
        lines.append(f"{size:>5}{cells}{ratio:>8}")
    return "\n".join(lines)


def checkpoint(options: argparse.Namespace) -> Path:
    """A checkpoint of the shape with random weights, with fewer layers if asked for."""
    from mlx_qwen3.bench import make_checkpoint

    return make_checkpoint(options.shape, options.bits, Path("models"), layers=options.layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a checkpoint's folder, instead of --shape")
    parser.add_argument("--shape", default="0.6b")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--texts", type=int, default=0, help="prompts for each size; 0: as many as the size")
    parser.add_argument("--prompt", type=int, default=32, help="tokens that only one prompt has")
    parser.add_argument("--shared", type=int, default=0, help="tokens that all prompts begin with")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of an answer")
    parser.add_argument("--vocabulary", type=int, default=1000, help="ids below this are drawn")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--cpu-time", action="store_true", help="measure CPU time, on a busy machine")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options)))
        return
    options.model = options.model or checkpoint(options)
    runs: dict[str, list[Any]] = {engine: [] for engine in options.engines}
    for number in range(options.repeat):
        for engine in options.engines:
            runs[engine].append(run(engine, options))
            print(f"{number + 1}/{options.repeat} {engine}", file=sys.stderr)
    print(table(runs, options.sizes))


if __name__ == "__main__":
    main()
