"""Time from starting `python chat.py` to its prompt, and from "hi" to the first token of the answer.

    python -m benchmarks.startup [--repeat 5] [--model demo]

Runs the real program in a pseudo-terminal, as the tests do (needs the extra `test`). The first start, in a
home folder that is new, compiles kernels on Linux, and is told apart from the later ones, which are counted.
CPU seconds show the cost of the start on a busy machine.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from pathlib import Path

from e2e.terminal import Terminal

FIRST = re.compile(r"first (\d+\.\d+) s")


def once(model: str, home: Path) -> tuple[float, float, float, float]:
    """Seconds until the prompt, of CPU until then, of the whole answer to "hi", and until its first token."""
    start = time.perf_counter()
    with Terminal(home, "--model", model, "--no-think") as terminal:
        terminal.wait("\n>\n", seconds=600)
        prompt, used = time.perf_counter() - start, terminal.cpu_seconds()
        start = time.perf_counter()
        terminal.type("hi")
        screen = terminal.wait("cached", seconds=600)
        answered = time.perf_counter() - start
    match = FIRST.search(screen)
    assert match, screen
    return prompt, used, answered, float(match[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        prompt, used, _, _ = once(options.model, Path(home))
        print(f"the first start: prompt on screen after {prompt:.2f} s, {used:.2f} s of CPU")
        runs = [once(options.model, Path(home)) for _ in range(options.repeat)]
    names = ("prompt on screen", "CPU time until then", "answer to hi complete", "first token of it")
    for name, seconds in zip(names, zip(*runs, strict=True), strict=True):
        print(f"{name}: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
