"""Everything to be done on a machine with a GPU, in one go: doctor, tests, and speed beside mlx-lm.

    python -m benchmarks.gpu_day OUT [--minutes 14] [--dry-run]

Leaves JSON, pictures, and what each step printed in the folder OUT. A step that fails or takes too long does
not keep the others from running; the last line counts them. The most telling steps come first.
--dry-run does the same with small shapes, to see on a CPU that it works.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

SHAPES = ("0.6b", "14b")
TESTS = ("tests/model", "tests/cache", "tests/generation", "tests/engine/test_session.py")
DRY_TESTS = ("tests/cache/test_serialization.py",)


def steps(out: Path, is_dry: bool) -> list[tuple[str, list[str], float]]:
    """Name, arguments of Python and share of the time of each step."""
    cli = ["-m", "mlx_qwen3"]
    found = [
        (
            "doctor",
            [*cli, "doctor", *(["--quick"] if is_dry else []), "--json", str(out / "doctor.json")],
            0.15,
        )
    ]
    for shape in ("tiny",) if is_dry else SHAPES:
        work = (
            ["--prompt", "16", "--tokens", "4", "--repeat", "1", "--limit", "20"]
            if is_dry
            else ["--prompt", "128,4096", "--batch", "1,8", "--repeat", "3", "--limit", "20"]
        )
        files = ["--json", str(out / f"{shape}.json"), "--plot", str(out / f"{shape}.png")]
        found.append(
            (f"bench {shape}", [*cli, "bench", "--shape", shape, "--vs", "mlx-lm", *work, *files], 0.3)
        )
    tests = DRY_TESTS if is_dry else TESTS
    found.append(("tests", ["-m", "pytest", "--device", "cpu" if is_dry else "gpu", *tests], 0.25))
    return found


def main() -> int:
    """Run all steps; the exit code is the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for what comes of it")
    parser.add_argument("--minutes", type=float, default=14, help="time for all steps")
    parser.add_argument("--dry-run", action="store_true", help="small shapes, on whatever device there is")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * arguments.minutes
    failed = 0
    todo = steps(arguments.out, arguments.dry_run)
    left = sum(share for *_, share in todo)
    for name, command, share in todo:
        limit = max(1.0, (end - time.monotonic()) * share / left)
        left -= share
        start = time.monotonic()
        with (arguments.out / f"{name.replace(' ', '-')}.log").open("w") as log:
            try:
                code: int | str = subprocess.run(
                    [sys.executable, *command], stdout=log, stderr=subprocess.STDOUT, timeout=limit
                ).returncode
            except subprocess.TimeoutExpired:
                code = f"stopped after {limit:.0f} s"
        failed += code != 0
        print(
            f"{name}: {'done' if code == 0 else f'failed ({code})'} in {time.monotonic() - start:.0f} s",
            flush=True,
        )
    print(f"{len(todo) - failed} of {len(todo)} steps went well; everything is in {arguments.out}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
