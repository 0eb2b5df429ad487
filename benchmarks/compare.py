"""Side by side with mlx-lm on the same checkpoint: prefill, decode, load time, memory.

    python -m benchmarks.compare --shape 0.6b --bits 4 --prompt 128 --repeat 5

Every measurement is a fresh process; the two engines alternate, and medians are compared. An engine
so slow that one run would take longer than `--limit` seconds gets a shorter prompt or fewer tokens:
it is first measured on a few, and the table says what it was given. Rates are per token either way.
Prints a table and writes benchmarks/results/<checkpoint>-<prompt>.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.shapes import SHAPES, make_checkpoint
from benchmarks.worker import ENGINES

RESULTS = Path(__file__).parent / "results"
PROBE_PROMPT, PROBE_TOKENS = 4, 2
# metric, its unit, and whether more of it is better
METRICS = [
    ("prefill_tok_s", "tok/s", True),
    ("decode_tok_s", "tok/s", True),
    ("load_s", "s", False),
    ("peak_mlx_gb", "GB", False),
    ("peak_resident_gb", "GB", False),
]


def run(engine: str, folder: Path, prompt: int, tokens: int) -> dict[str, Any]:
    """One measurement in a fresh process. Raises CalledProcessError, its stderr shown, on failure."""
    command = [sys.executable, "-m", "benchmarks.worker", engine, str(folder)]
    command += ["--prompt", str(prompt), "--tokens", str(tokens)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def plan(engine: str, folder: Path, prompt: int, tokens: int, limit: float) -> tuple[int, int]:
    """The prompt and the answer that fit `limit` seconds, two thirds of them for the prompt."""
    probe = run(engine, folder, PROBE_PROMPT, PROBE_TOKENS)
    fit_prompt = int(probe["prefill_tok_s"] * limit * 2 / 3)
    fit_tokens = int(probe["decode_tok_s"] * limit / 3)
    return min(prompt, max(fit_prompt, PROBE_PROMPT)), min(tokens, max(fit_tokens, PROBE_TOKENS))


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure both engines alternately, `--repeat` times each."""
    work = {e: plan(e, folder, options.prompt, options.tokens, options.limit) for e in ENGINES}
    runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
    for number in range(options.repeat):
        for engine, (prompt, tokens) in work.items():
            runs[engine].append(run(engine, folder, prompt, tokens))
            latest = runs[engine][-1]
            rates = f"{latest['prefill_tok_s']:.2f} and {latest['decode_tok_s']:.2f} tok/s"
            print(f"{number + 1}/{options.repeat} {engine}: {rates}", file=sys.stderr)
    return {"setup": _setup(options), "work": work, "runs": runs}


def _setup(options: argparse.Namespace) -> dict[str, Any]:
    import mlx.core as mx

    packages = {name: version(name) for name in ("mlx", "mlx-lm", "mlx-qwen3")}
    machine = {"device": str(mx.default_device()), "info": mx.device_info(), "system": platform.platform()}
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    return {"asked": asked, "packages": packages, **machine}


def table(result: dict[str, Any]) -> str:
    """Medians (lowest to highest) of both engines, and how many times better ours is."""
    runs, work = result["runs"], result["work"]
    rows = [f"{'':18}" + "".join(f"{engine:>28}" for engine in runs) + f"{'ratio':>9}"]
    for name, unit, more_is_better in METRICS:
        values = {engine: [run[name] for run in runs[engine]] for engine in runs}
        mine, peer = (median(values[engine]) for engine in runs)
        ratio = mine / peer if more_is_better else peer / mine
        cells = [f"{median(v):.2f} ({min(v):.2f}-{max(v):.2f}) {unit}" for v in values.values()]
        rows.append(f"{name:18}" + "".join(f"{cell:>28}" for cell in cells) + f"{ratio:>8.2f}x")
    given = [
        f"{engine}: {prompt} prompt, {tokens} answer tokens" for engine, (prompt, tokens) in work.items()
    ]
    count = len(next(iter(runs.values())))
    rows.append(f"medians of {count} fresh processes each, alternating; {'; '.join(given)}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--bits", type=int, choices=(2, 3, 4, 5, 6, 8, 16), default=4)
    parser.add_argument("--model", type=Path, help="an MLX checkpoint's folder, in place of --shape")
    parser.add_argument("--prompt", type=int, default=128, help="prompt tokens")
    parser.add_argument("--tokens", type=int, default=32, help="answer tokens after the first")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--limit", type=float, default=60, help="seconds one run of an engine may take")
    options = parser.parse_args()
    folder = options.model or make_checkpoint(options.shape, options.bits)
    result = compare(folder, options)
    RESULTS.mkdir(exist_ok=True)
    name = f"{folder.name}-{options.prompt}.json"
    (RESULTS / name).write_text(json.dumps(result, indent=2))
    print(table(result))


if __name__ == "__main__":
    main()
