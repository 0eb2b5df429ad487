"""Throughput and waiting times under load, beside mlx_lm's BatchGenerator on the same files and prompts.

    python -m benchmarks.load --model mlx_qwen3/demo --plot docs/load.png
    python -m benchmarks.load --shape 0.6b --layers 4 --prompt 16 --tokens 16 --long 256

Each size is a number of clients. They arrive all at once, or spread over `--spread` seconds. Ours are threads
with a completion each on one Engine; BatchGenerator is run by one loop, which inserts each prompt when its
time has come. Then a prompt of `--long` tokens arrives while one client is decoding: its time to the first
token, and the worst gap between two tokens of the client. Greedy. A run is a fresh process for each engine,
which alternate. The table has medians.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

# For each client its prompt, how many tokens follow, and when it arrives, in seconds.
Clients = list[tuple[list[int], int, float]]
Serve = Callable[[Clients], list[list[float]]]  # -> when each client got each of its tokens
ALONE_TOKENS = 8  # of the client, before the long prompt arrives


def ours(folder: Path) -> Serve:
    from mlx_qwen3 import Engine, SamplingParams
    from mlx_qwen3.engine.completion import Completion

    engine = Engine(str(folder), draft_model=None)

    def serve(clients: Clients) -> list[list[float]]:
        times: list[list[float]] = [[] for _ in clients]
        start = time.perf_counter()

        def run(number: int) -> None:
            ids, tokens, arrives = clients[number]
            time.sleep(max(0.0, arrives - (time.perf_counter() - start)))
            # No token ends the text, so that every engine generates as many.
            params = SamplingParams(temperature=0, max_tokens=tokens, min_tokens=tokens)
            completion = Completion(engine, ids, params)
            generated = 0
            for _ in completion.events():
                count = completion.generated
                if count > generated:
                    times[number] += [time.perf_counter() - start] * (count - generated)
                    generated = count
            rest = tokens - len(times[number])
            times[number] += [time.perf_counter() - start] * rest

        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(clients))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return times

    return serve


def mlx_lm(folder: Path) -> Serve:
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)

    def serve(clients: Clients) -> list[list[float]]:
        size = max(len(clients), 1)
        batch = BatchGenerator(model, completion_batch_size=size, prefill_batch_size=min(size, 8))
        times: list[list[float]] = [[] for _ in clients]
        waiting = sorted(range(len(clients)), key=lambda number: clients[number][2])
        numbers: dict[int, int] = {}
        start = time.perf_counter()
        while waiting or any(len(times[n]) < clients[n][1] for n in numbers.values()):
            while waiting and clients[waiting[0]][2] <= time.perf_counter() - start:
                number = waiting.pop(0)
                ids, tokens, _ = clients[number]
                (uid,) = batch.insert([ids], [tokens])
                numbers[uid] = number
            if not any(len(times[n]) < clients[n][1] for n in numbers.values()):
                time.sleep(0.001)
                continue
            for response in batch.next_generated():
                times[numbers[response.uid]].append(time.perf_counter() - start)
        batch.close()
        return times

    return serve


ENGINES = {"mlx-qwen3": ours, "mlx-lm": mlx_lm}


def measure(serve: Serve, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Figures of each scenario."""
    draw = random.Random(0)

    def prompt(count: int) -> list[int]:
        return [draw.randrange(options.vocabulary) for _ in range(count)]

    results: dict[str, dict[str, float]] = {}
    for size in options.sizes:
        for spread in (0.0, options.spread):
            if spread and size == 1:
                continue
            step = spread / max(1, size - 1)
            clients = [(prompt(options.prompt), options.tokens, number * step) for number in range(size)]
            times = serve(clients)
            seconds = max(each[-1] for each in times)
            ttft = [own[0] - arrives for own, (_, _, arrives) in zip(times, clients, strict=True)]
            name = f"{size} {'spread' if spread else 'at once'}"
            results[name] = {"tokens_per_second": size * options.tokens / seconds, "ttft": median(ttft)}
    # How long the client takes for its first tokens says when the long prompt should arrive.
    first = serve([(prompt(options.prompt), ALONE_TOKENS, 0.0)])[0][-1]
    writer = (prompt(options.prompt), options.tokens * 4, 0.0)
    times = serve([writer, (prompt(options.long), 2, first)])
    gaps = [b - a for a, b in pairwise(times[0])]
    alone = serve([writer])[0]
    plain = median(b - a for a, b in pairwise(alone))
    results[f"a prompt of {options.long}"] = {
        "ttft": times[1][0] - first,
        "worst_gap": max(gaps),
        "usual_gap": plain,
    }
    return results


def worker(engine: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """All scenarios in this process, after a short one that does not count."""
    serve = ENGINES[engine](options.model)
    serve([([1, 2, 3], 3, 0.0), ([4, 5], 3, 0.0)])
    return measure(serve, options)


def run(engine: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """`worker` in a fresh process. By its path: the peer must not import mlx_qwen3, nor get our BLAS."""
    command = [sys.executable, __file__, "--worker", engine, "--model", str(options.model)]
    for name in ("prompt", "tokens", "long", "spread", "vocabulary"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--sizes", *map(str, options.sizes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return result


def medians(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        name: {key: median(result[name][key] for result in runs) for key in runs[0][name]} for name in runs[0]
    }


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    names = list(next(iter(figures.values())))
    lines = ["| clients | " + " | ".join(f"{engine}: tok/s, TTFT" for engine in figures) + " | ratio |"]
    lines.append("|---|" + "---|" * (len(figures) + 1))
    for name in names:
        own = [result[name] for result in figures.values()]
        if "worst_gap" in own[0]:
            cells = [
                f"TTFT {each['ttft']:.2f} s, gap {each['worst_gap']:.3f} s (usual {each['usual_gap']:.3f})"
                for each in own
            ]
            ratio = own[-1]["worst_gap"] / own[0]["worst_gap"]
        else:
            cells = [f"{each['tokens_per_second']:.1f}, {each['ttft']:.2f} s" for each in own]
            ratio = own[0]["tokens_per_second"] / own[-1]["tokens_per_second"]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {ratio:.2f} |")
    return "\n".join(lines)


def plot(figures: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Throughput over the number of clients, and the gaps while a long prompt arrives."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5))
    for engine, result in figures.items():
        at_once = {int(name.split()[0]): own for name, own in result.items() if name.endswith("at once")}
        left.plot(list(at_once), [own["tokens_per_second"] for own in at_once.values()], "o-", label=engine)
    left.set(xlabel="clients at once", ylabel="tokens per second", ylim=(0, None))
    left.legend()
    long = next(name for name in next(iter(figures.values())) if name.startswith("a prompt"))
    for place, (engine, result) in enumerate(figures.items()):
        right.bar(place - 0.2, 1000 * result[long]["usual_gap"], 0.4, color="tab:gray")
        right.bar(place + 0.2, 1000 * result[long]["worst_gap"], 0.4, color=f"C{place}")
        right.annotate(engine, (place, 1.05), ha="center", va="bottom", fontsize=8)
    right.set(ylabel="ms between two tokens", title=f"usual gap, and the worst while {long} tokens arrives")
    right.set_yscale("log")
    right.set_xticks([])
    right.title.set_fontsize(9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a checkpoint's folder, in place of --shape")
    parser.add_argument("--shape", default="0.6b")
    parser.add_argument("--layers", type=int, help="of the shape, fewer than it has")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--long", type=int, default=4032, help="tokens of the prompt that arrives in between")
    parser.add_argument("--spread", type=float, default=1.0, help="seconds over which clients arrive")
    parser.add_argument("--vocabulary", type=int, default=1000, help="ids below this are drawn")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options)))
        return
    if options.model is None:
        from qwen_tokenizer_files import qwen_tokenizer_folder

        from benchmarks.convert import copy_tokenizer
        from mlx_qwen3.bench import make_checkpoint

        options.model = make_checkpoint(options.shape, 4, Path("models"), layers=options.layers)
        copy_tokenizer(qwen_tokenizer_folder(), options.model)
    runs: dict[str, list[Any]] = {engine: [] for engine in options.engines}
    for number in range(options.repeat):
        for engine in options.engines:
            runs[engine].append(run(engine, options))
            print(f"{number + 1}/{options.repeat} {engine}", file=sys.stderr)
    figures = {engine: medians(results) for engine, results in runs.items()}
    print(table(figures))
    if options.plot:
        plot(figures, options.plot)


if __name__ == "__main__":
    main()
