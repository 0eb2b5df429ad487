"""Runs a benchmark: the engines in turn, each run in a fresh process, on the same files."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlx_qwen3.backend.versions import installed_version
from mlx_qwen3.bench import llama_cpp, worker
from mlx_qwen3.bench.cost import cost_of
from mlx_qwen3.bench.result import Result
from mlx_qwen3.checkpoint import load_config
from mlx_qwen3.errors import BenchmarkError

ENGINES = tuple(worker.ENGINES)  # ours comes first
# What is imported, and what is installed for it.
PEERS = {"mlx-lm": ("mlx_lm", "mlx-lm"), "llama.cpp": ("xllamacpp", "xllamacpp 'mlx-qwen3[gguf]'")}
OnRun = Callable[[str, int], None]
"""Called with the engine and the number of each run before it starts."""


@dataclass(frozen=True)
class Workload:
    """What is measured: every batch size with every prompt length.

    Attributes:
        prompts: Prompt lengths in tokens.
        batches: Numbers of sequences that are generated together.
        tokens: Tokens generated after the first.
        repeat: Runs of each engine.
        limit: Seconds that one case may take. A slower engine gets a shorter prompt and fewer tokens;
            rates are per token, and the result says how much it ran.
    """

    prompts: Sequence[int] = (128, 1024)
    batches: Sequence[int] = (1,)
    tokens: int = 64
    repeat: int = 3
    limit: float = 30.0

    @property
    def cases(self) -> list[tuple[int, int, int]]:
        """(prompt tokens, batch size, answer tokens) of each case."""
        return [(prompt, batch, self.tokens) for batch in self.batches for prompt in self.prompts]


def run(
    folder: Path, workload: Workload, engines: Sequence[str] = ENGINES[:1], on_run: OnRun | None = None
) -> Result:
    """Measure a checkpoint with each engine in turn.

    Args:
        folder: The checkpoint.
        workload: What to measure.
        engines: Names in ENGINES.
        on_run: Called before each run.

    Raises:
        BenchmarkError: The workload is not possible, or a process failed.
    """
    _check(folder, workload, engines)
    cost, ceilings = cost_of(folder), _json_from("-m", "mlx_qwen3.bench.roofline")
    cases, limit = json.dumps(workload.cases), str(workload.limit)
    runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    for number in range(workload.repeat):
        for engine in engines:
            if on_run is not None:
                on_run(engine, number)
            started = time.time()
            figures = _json_from("-P", worker.__file__, engine, str(folder), cases, limit)
            runs[engine].append({"start_s": figures.pop("first_token_at") - started, **figures})
    return Result(_setup(folder, workload), ceilings, cost, runs)


def _check(folder: Path, workload: Workload, engines: Sequence[str]) -> None:
    if unknown := [engine for engine in engines if engine not in ENGINES]:
        raise BenchmarkError(f"engine {unknown[0]!r} is none of {', '.join(ENGINES)}")
    context, longest = load_config(folder).context_length, max(workload.prompts) + workload.tokens
    if longest > context:
        raise BenchmarkError(
            f"prompt and answer would have {longest:,} tokens, the model's context is {context:,}"
        )
    if min(workload.prompts) < 2 or min(workload.batches) < 1 or workload.tokens < 1 or workload.repeat < 1:
        raise BenchmarkError("prompts need at least 2 tokens; batches, tokens and repeat must be at least 1")
    for engine, (module, package) in PEERS.items():
        if engine in engines and find_spec(module) is None:
            raise BenchmarkError(f"{engine} is not installed; pip install {package}")
    if "llama.cpp" in engines:
        _prepare_llama_cpp(folder, workload)


def _prepare_llama_cpp(folder: Path, workload: Workload) -> None:
    """Write its file before anything is timed. Raises BenchmarkError for what it is not compared at."""
    if max(workload.batches) > 1:
        raise BenchmarkError("llama.cpp is compared with one sequence at a time: batches must be 1")
    if max(workload.prompts) + workload.tokens > worker.LLAMA_CPP_CONTEXT:
        raise BenchmarkError(f"prompt and answer must have {worker.LLAMA_CPP_CONTEXT:,} tokens at most")
    if not llama_cpp.can_be_written(json.loads((folder / "config.json").read_text())):
        raise BenchmarkError("llama.cpp is compared with checkpoints of 4, 8 and 16 bits")
    try:
        llama_cpp.gguf_of(folder)
    except OSError as error:
        raise BenchmarkError(f"{folder / llama_cpp.FILE} could not be written: {error.strerror}") from error


def _json_from(*arguments: str) -> dict[str, Any]:
    """Run a fresh Python with `arguments`. Returns the JSON on its last line. Raises BenchmarkError."""
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    if done.returncode != 0 or not done.stdout.strip():
        reason = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        name = next((argument for argument in arguments if argument in ENGINES), arguments[-1])
        raise BenchmarkError(f"the process of {name} failed: {reason}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _setup(folder: Path, workload: Workload) -> dict[str, Any]:
    import mlx.core as mx

    return {
        "checkpoint": folder.name,
        "work": asdict(workload),
        "packages": {name: installed_version(name) for name in ("mlx", "mlx-lm", "mlx-qwen3", "xllamacpp")},
        "device": str(mx.device_info().get("device_name", mx.default_device())),
        "system": platform.platform(),
    }
