"""Whether the memory plan sees what another program takes.

    python -m benchmarks.taken [--gigabytes 4] [--repeat 3]

Plans the 8B, has a process of its own fill so much memory, and plans again. Other programs should be quiet.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS
from mlx_qwen3.checkpoint import FAMILY
from mlx_qwen3.checkpoint.memory_plan import family_request, plan_memory

TAKE = """
import sys
taken = bytearray(int(sys.argv[1]))
for place in range(0, len(taken), 4096):
    taken[place] = 1
print("taken", flush=True)
sys.stdin.read()
"""


def planned() -> tuple[int, int]:
    """Bytes the plan may fill, and the longest context of the 8B in them."""
    plan = plan_memory(family_request(FAMILY["8b"]))
    return plan.available, plan.longest_context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    command = [sys.executable, "-c", TAKE, str(int(arguments.gigabytes * 1e9))]
    for _ in range(arguments.repeat):
        before = planned()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            after = planned()
            child.communicate()
        print(
            f"{before[0] / 1e9:.2f} GB, {before[1]:,} tokens; with {arguments.gigabytes:g} GB taken "
            f"{after[0] / 1e9:.2f} GB, {after[1]:,} tokens: {(before[0] - after[0]) / 1e9:.2f} GB less"
        )


if __name__ == "__main__":
    main()
