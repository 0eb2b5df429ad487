"""Conversion beside mlx_lm.convert: wall time and peak memory.

    python -m benchmarks.convert --shape 0.6b --repeat 3
    python -m benchmarks.convert --shape 14b --only mlx-qwen3        # needs 38 GB of disk

Both convert the same random bf16 checkpoint to 4 bits, in turn, each in a fresh process. Medians are
compared. Peak memory is the peak resident size of the process, imports included. "checked" verifies the
result against the source, as `mlx-qwen3 convert` does by default; mlx_lm.convert does not verify.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from mlx_qwen3.bench.shapes import SHAPES

PROGRAMS = {
    "mlx-lm": "from mlx_lm.convert import convert; convert({source!r}, {output!r}, quantize=True)",
    "mlx-qwen3": "from mlx_qwen3 import convert; convert({source!r}, {output!r}, verify=False)",
    "mlx-qwen3, checked": "from mlx_qwen3 import convert; convert({source!r}, {output!r})",
    "mlx-qwen3, searched": (
        "from mlx_qwen3 import convert; convert({source!r}, {output!r}, verify=False, recipe='searched')"
    ),
}
DEMO = Path(__file__).parent.parent / "mlx_qwen3" / "demo"


def source_folder(shape: str, work: Path) -> Path:
    """A bf16 checkpoint of `shape` in `work`, with a tokenizer, which mlx_lm.convert requires.

    It is made in a process of its own: the measured processes would inherit this one's peak memory.
    """
    code = f"from mlx_qwen3.bench.shapes import *; print(make_checkpoint({shape!r}, 16, Path({str(work)!r})))"
    made = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    folder = Path(made.stdout.splitlines()[-1])
    copy_tokenizer(DEMO, folder)
    return folder


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Give the checkpoint in `folder`, of random weights, the tokenizer and chat template of another."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, folder)


def measure(program: str, source: Path, output: Path) -> dict[str, float]:
    """Seconds and peak GB of one conversion in a process of its own. Raises CalledProcessError."""
    shutil.rmtree(output, ignore_errors=True)
    code = PROGRAMS[program].format(source=str(source), output=str(output))
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise subprocess.CalledProcessError(status, program)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on a Mac, in KiB elsewhere
    size = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    shutil.rmtree(output)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_gb": usage.ru_maxrss * unit / 1e9,
        "output_gb": size / 1e9,
    }


def table(shape: str, runs: dict[str, list[dict[str, float]]]) -> str:
    """A table of medians and of their ratios to mlx-lm's, in Markdown."""
    columns = {"seconds": "seconds", "cpu_seconds": "CPU seconds", "peak_gb": "peak memory, GB"}
    lines = [f"| {shape} | {' | '.join(columns.values())} |", "|---|---|---|---|"]
    peer = runs.get("mlx-lm")
    for program, results in runs.items():
        cells = []
        for key in columns:
            value = median(result[key] for result in results)
            share = f" ({value / median(result[key] for result in peer):.2f})" if peer else ""
            cells.append(f"{value:.2f}{share}")
        lines.append(f"| {program} | {' | '.join(cells)} |")
    return "\n".join([*lines, f"medians of {len(results)}; in brackets: shares of mlx-lm's"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--only", action="append", choices=PROGRAMS, help="programs to run; else the first three"
    )
    parser.add_argument("--work", type=Path, default=Path("models"), help="folder for source and results")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep the source for another run")
    options = parser.parse_args()
    source = source_folder(options.shape, options.work)
    programs = options.only or list(PROGRAMS)[:3]
    runs: dict[str, list[dict[str, Any]]] = {program: [] for program in programs}
    for number in range(options.repeat):
        for program in programs:
            runs[program].append(measure(program, source, options.work / "converted"))
            latest = runs[program][-1]
            line = f"{latest['seconds']:.1f} s, {latest['peak_gb']:.2f} GB"
            print(f"{number + 1}/{options.repeat} {program}: {line}", file=sys.stderr)
    if not options.keep:
        shutil.rmtree(source)
    print(table(options.shape, runs))
    if options.json:
        options.json.write_text(json.dumps(runs, indent=2))


if __name__ == "__main__":
    main()
