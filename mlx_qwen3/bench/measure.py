"""Runs engines in turn, each time in a fresh process, on the same files."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlx_qwen3.bench import worker
from mlx_qwen3.bench.cost import cost_of
from mlx_qwen3.bench.result import Result
from mlx_qwen3.checkpoint import load_config
from mlx_qwen3.errors import BenchmarkError

ENGINES = tuple(worker.ENGINES)  # ours comes first
OnRun = Callable[[str, int], None]


@dataclass(frozen=True)
class Work:
    """What is measured: every batch of every prompt length, `tokens` written after each, all `repeat` times.

    limit: seconds one of them may take. An engine too slow for it gets a shorter prompt and fewer
    tokens; rates are per token either way, and the result says what it was given.
    """

    prompts: Sequence[int] = (128, 1024)
    batches: Sequence[int] = (1,)
    tokens: int = 64
    repeat: int = 3
    limit: float = 30.0

    @property
    def cases(self) -> list[tuple[int, int, int]]:
        """(prompt tokens, texts at once, answer tokens) of each."""
        return [(prompt, batch, self.tokens) for batch in self.batches for prompt in self.prompts]


def run(
    folder: Path, work: Work, engines: Sequence[str] = ENGINES[:1], on_run: OnRun | None = None
) -> Result:
    """Measure the checkpoint in `folder` with each of `engines`, in turn.

    on_run: told the engine and the number of each run before it starts. Raises BenchmarkError for
    work that cannot be done and for a process that fails.
    """
    _check(folder, work, engines)
    cost, ceilings = cost_of(folder), _process("-m", "mlx_qwen3.bench.roofline")
    runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    for number in range(work.repeat):
        for engine in engines:
            if on_run is not None:
                on_run(engine, number)
            started = time.time()
            found = _process(
                "-P", worker.__file__, engine, str(folder), json.dumps(work.cases), str(work.limit)
            )
            runs[engine].append({"start_s": found.pop("first_token_at") - started, **found})
    return Result(_setup(folder, work), ceilings, cost, runs)


def _check(folder: Path, work: Work, engines: Sequence[str]) -> None:
    context, longest = load_config(folder).context_length, max(work.prompts) + work.tokens
    if longest > context:
        raise BenchmarkError(f"prompt and answer would have {longest:,} tokens, the model reads {context:,}")
    if min(work.prompts) < 2 or min(work.batches) < 1 or work.tokens < 1 or work.repeat < 1:
        raise BenchmarkError("a prompt needs 2 tokens, and batches, answers and repetitions at least 1")
    if "mlx-lm" in engines and find_spec("mlx_lm") is None:
        raise BenchmarkError("mlx-lm is not installed; pip install mlx-lm")


def _process(*arguments: str) -> dict[str, Any]:
    """What a fresh Python prints on its last line, as JSON."""
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    if done.returncode != 0 or not done.stdout.strip():
        said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise BenchmarkError(f"the process of {_name(arguments)} failed: {said[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _name(arguments: Sequence[str]) -> str:
    return next((argument for argument in arguments if argument in ENGINES), arguments[-1])


def _setup(folder: Path, work: Work) -> dict[str, Any]:
    import mlx.core as mx

    from mlx_qwen3 import BLAS

    return {
        "checkpoint": folder.name,
        "work": asdict(work),
        "packages": {name: _version(name) for name in ("mlx", "mlx-lm", "mlx-qwen3")},
        "device": str(mx.device_info().get("device_name", mx.default_device())),
        "blas": BLAS,
        "system": platform.platform(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
