"""Reads mutated files of all kinds, each in a process whose time and memory are limited.

    python -m benchmarks.fuzz                  # 30,000 files
    python -m benchmarks.fuzz --files 1000 --only cache --first-seed 5000

A fault is an exception that is not ours, a file that takes over 10 s of processor time or 2 GB, a process
that dies, and a message with a control character or of over 300 characters. Each is printed with its kind
and seed; a line of them in tests/fuzz/seeds.txt makes the test suite read that file again.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from fuzz.targets import Target, make_targets

from mlx_qwen3.cli.errors import error_line
from mlx_qwen3.cli.output import error_text
from mlx_qwen3.errors import MAX_MESSAGE_CHARACTERS, is_hidden

MAX_SECONDS, MAX_BYTES = 10.0, 2 * 2**30


def work(name: str, first: int, count: int, folder: Path) -> None:
    """Read files of one kind. Prints a JSON line before each, and one for each fault."""
    target = next(target for target in make_targets(folder) if target.name == name)
    target.run(target.sound)
    if Path("/proc/self/statm").exists():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MAX_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    slowest = 0.0
    for seed in range(first, first + count):
        print(json.dumps({"seed": seed}), flush=True)
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)  # nothing handles its signal: the process ends
        started = time.process_time()
        if fault := fault_of(target, seed):
            print(json.dumps({"seed": seed, "fault": fault}), flush=True)
        slowest = max(slowest, time.process_time() - started)
        signal.setitimer(signal.ITIMER_PROF, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"slowest": slowest, "peak": peak}), flush=True)


def fault_of(target: Target, seed: int) -> str:
    """What is wrong with how the file of this seed is read; empty if nothing is."""
    try:
        error = target.run(target.mutated(seed))
    except BaseException as problem:  # noqa: BLE001  that is what is looked for
        frame = traceback.extract_tb(problem.__traceback__)[-1]
        return (
            f"{type(problem).__name__} at {Path(frame.filename).name}:{frame.lineno}: {str(problem)[:100]!a}"
        )
    for line in (str(error), error_text(error_line(error))) if error else ():
        if len(line) > MAX_MESSAGE_CHARACTERS:
            return f"a message of {len(line)} characters"
        if any(map(is_hidden, line)):
            return f"a message with control characters: {line[:100]!a}"
    return ""


def read_all(target: Target, first: int, count: int, folder: Path) -> tuple[int, float, float]:
    """Have processes read files of one kind. Returns faults, the longest time and the largest process."""
    faults, slowest, peak, seed, end = 0, 0.0, 0.0, first, first + count
    while seed < end:
        arguments = ["--work", target.name, str(seed), str(end - seed), str(folder / f"{target.name} {seed}")]
        command = [sys.executable, "-m", "benchmarks.fuzz", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout
        is_done = False
        for line in process.stdout:
            row = json.loads(line)
            seed = row.get("seed", seed)
            if "fault" in row:
                faults += 1
                print(f"  {target.name} {seed}: {row['fault']}", flush=True)
            if "peak" in row:
                slowest, peak, is_done = max(slowest, row["slowest"]), max(peak, row["peak"]), True
        if not is_done:
            faults += 1
            print(f"  {target.name} {seed}: the process ended with {process.wait()}", flush=True)
        process.wait()
        seed += 1
        if is_done:
            break
    return faults, slowest, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=30_000)
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        name, first, count, place = options.work
        work(name, int(first), int(count), Path(place))
        return
    with tempfile.TemporaryDirectory() as folder:
        targets = [target for target in make_targets(Path(folder) / "sound") if options.only in target.name]
        weights = sum(target.weight for target in targets)
        total = 0
        for target in targets:
            count = max(1, options.files * target.weight // weights)
            faults, slowest, peak = read_all(target, options.first_seed, count, Path(folder))
            total += faults
            print(f"{target.name:20} {count:6,} files, {faults} faults, slowest {slowest:.2f} s, "
                  f"largest process {peak / 2**20:,.0f} MiB", flush=True)  # fmt: skip
    print(f"{total} faults")
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
