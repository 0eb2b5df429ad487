"""Servers under load: throughput and waiting times of 1 to 64 clients, beside mlx_lm.server and llama.cpp's.

    python -m benchmarks.server_load [--model demo] [--clients 1 4 16 64] [--rate 4] [--seconds 20]

The clients are locust's (`benchmarks/server_locust.py`). Closed loop: each client sends its next streamed
chat as soon as it has the answer to the last. Open loop (`--rate`): chats arrive at random moments, so many a
second on average. All servers get the same checkpoint and the same messages. Each load runs for `--seconds`
on a fresh process of each server in turn. Greedy, without thinking, with at most `--tokens` tokens an answer.
The table has medians of `--repeat` runs. Needs locust, and for llama.cpp xllamacpp and gguf.

Tokens are those that servers report; of an answer that was cut off at the end, the pieces that had come. TTFT
is from the request to the first piece of text; one that has not come counts as long as it was waited for. Per
token: the median over whole answers of the time between two tokens. CPU s: processor time of the server for
1,000 tokens. Cut off: answers not whole at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.server_processes import SERVERS, Started, running

LOCUST = Path(__file__).with_name("server_locust.py")
Figures = dict[str, float]


def load(server: Started, clients: int, rate: float, options: argparse.Namespace) -> Figures:
    """One load on one server."""
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples.json"
        program = [sys.executable, "-m", "locust", "-f", str(LOCUST), "--headless", "--only-summary"]
        program += ["--host", server.url, "--users", str(clients), "--spawn-rate", str(clients)]
        program += ["--run-time", f"{options.seconds}s", "--exit-code-on-error", "0", "--loglevel", "ERROR"]
        program += ["--served-model", server.model, "--tokens", str(options.tokens)]
        program += ["--rate", str(rate), "--samples", str(samples)]
        before = server.cpu_seconds
        done = subprocess.run(
            program, cwd=folder, capture_output=True, text=True, check=False,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )  # fmt: skip
        if not samples.exists():
            raise RuntimeError(f"locust ended with {done.returncode}: {done.stderr[-2000:]}")
        return figures(json.loads(samples.read_text()), options.seconds, server.cpu_seconds - before)


def figures(samples: list[dict[str, Any]], seconds: float, cpu_seconds: float) -> Figures:
    """Sums and percentiles of one load that took `seconds`, and of the server's processors `cpu_seconds`."""
    good = [sample for sample in samples if not sample["error"]]
    waited = sorted(sample.get("first", sample["end"]) - sample["start"] for sample in good) or [0.0]
    whole = [sample for sample in good if sample["is_whole"]]
    per_token = [
        (sample["last"] - sample["first"]) / (sample["tokens"] - 1)
        for sample in whole
        if sample["pieces"] > 1 and sample["tokens"] > 1
    ]
    tokens = sum(sample["tokens"] if sample["is_whole"] else sample["pieces"] for sample in good)
    return {
        "tokens": tokens / seconds,
        "p50": 1000 * waited[len(waited) // 2],
        "p95": 1000 * waited[int(0.95 * (len(waited) - 1))],
        "per_token": 1000 * statistics.median(per_token) if per_token else float("nan"),
        "cpu": 1000 * cpu_seconds / tokens if tokens else float("nan"),
        "whole": len(whole),
        "cut_off": len(good) - len(whole),
        "errors": len(samples) - len(good),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="demo", help="demo, or a folder that mlx-lm can load, too")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--rate", type=float, nargs="*", default=[4.0], help="Open loop: chats a second.")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=list(SERVERS))
    parser.add_argument("--json", type=Path, help="Write the figures of all runs to this file.")
    options = parser.parse_args()
    from mlx_qwen3.checkpoint import resolve

    folder = Path(resolve(options.model))
    loads = [(f"{clients} clients", clients, 0.0) for clients in options.clients]
    loads += [(f"{rate:g} a second", 1, rate) for rate in options.rate]
    runs: dict[str, dict[str, list[Figures]]] = {}
    print("| load | server | tokens/s | TTFT p50 | p95 | per token | CPU s | whole | cut off | errors |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, clients, rate in loads:
        found: dict[str, list[Figures]] = {server: [] for server in options.servers}
        for _ in range(options.repeat):
            for server in options.servers:
                with running(server, folder) as started:
                    found[server].append(load(started, clients, rate, options))
        for server, each in found.items():
            show(name, server, {key: statistics.median(run[key] for run in each) for key in each[0]})
        runs[name] = found
    if options.json is not None:
        options.json.write_text(json.dumps(runs, indent=1))


def show(name: str, server: str, row: Figures) -> None:
    print(
        f"| {name} | {server} | {row['tokens']:.1f} | {row['p50']:.0f} ms | {row['p95']:.0f} ms "
        f"| {row['per_token']:.1f} ms | {row['cpu']:.2f} | {row['whole']:.0f} "
        f"| {row['cut_off']:.0f} | {row['errors']:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
