"""What mlx-lm's sharded run does where ours has an answer, and what ours does, on the same files.

Each case runs mlx-lm over ranks on this machine, then this package; a line says what came of it.
`benchmarks.distributed --limits` runs it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 30.0  # seconds until a case counts as hanging
TEXTS = ["abc", "a longer text than that", "x"]


def peer(case: str, folder: str) -> None:
    """One rank of mlx-lm."""
    import mlx.core as mx
    from mlx_lm.generate import batch_generate, stream_generate
    from mlx_lm.utils import load, sharded_load

    group = mx.distributed.init(strict=True)
    if case == "dense pipeline":
        model, tokenizer = sharded_load(folder, pipeline_group=group)
    elif case == "uneven pipeline":
        model, tokenizer, *_ = load(folder, lazy=True)
        model.model.pipeline(group, split=[1, 2])
    else:
        model, tokenizer = sharded_load(folder, tensor_group=group)
    if case == "batch":
        ids = [tokenizer.encode(text) for text in TEXTS]
        texts = batch_generate(model, tokenizer, ids, max_tokens=4).texts
        assert len(texts) == len(TEXTS)
    else:
        for number, _ in enumerate(stream_generate(model, tokenizer, "abc", max_tokens=_tokens(case))):
            if number == 2 and group.rank() == 0:
                print("begun", flush=True)
    if group.rank() == 0:
        print("done", flush=True)


def own(case: str, folder: str) -> None:
    """One rank of this package."""
    from mlx_qwen3 import Engine
    from mlx_qwen3.errors import Qwen3Error

    mode = "pipeline" if "pipeline" in case else "tensor"
    with Engine(folder, distributed=mode, draft_model=None) as engine:
        if case == "batch":
            assert len(list(engine.generate_batch(TEXTS, sampling={"max_tokens": 4}))) == len(TEXTS)
        else:
            tokens = _tokens(case)
            try:
                sampling = {"max_tokens": tokens, "min_tokens": tokens}
                for number, _ in enumerate(engine.complete("abc", sampling=sampling)):
                    if number == 2:
                        print("begun", flush=True)
            except Qwen3Error as error:
                sys.exit(f"error: {error}")
        print("done", flush=True)


def _tokens(case: str) -> int:
    return 30_000 if case == "death" else 4


def run(start: Callable[[int, list[str]], list[Any]]) -> None:
    """All cases. start: starts ranks of `benchmarks.distributed` with arguments."""
    sys.path.insert(0, str(ROOT / "tests"))
    from scripted import write_byte_tokenizer
    from tiny_checkpoints import DENSE, MOE, write_checkpoint

    parent = Path(tempfile.mkdtemp())
    for name, raw in (("dense", DENSE), ("mixture", MOE)):
        write_checkpoint(parent / name, raw | {"vocab_size": 320}, shards=3)
        write_byte_tokenizer(parent / name)
    cases = [
        ("a dense model as a pipeline", "dense pipeline", "dense", 2),
        ("a mixture as a pipeline of 1 and 2 layers", "uneven pipeline", "mixture", 2),
        ("two key/value heads over three ranks", "heads", "dense", 3),
        ("three texts in a batch", "batch", "dense", 2),
    ]
    for said, case, model, size in cases:
        for engine in ("mlx-lm", "mlx-qwen3"):
            ranks = start(size, ["--limits-worker", engine, case, str(parent / model)])
            print(f"{said}: {engine} {_outcome(ranks)}", flush=True)
    for engine in ("mlx-lm", "mlx-qwen3"):
        ranks = start(2, ["--limits-worker", engine, "death", str(parent / "dense")])
        print(f"the death of rank 1: {engine} {_death(ranks)}", flush=True)
    for seed in (None, 7):
        for engine in ("mlx-lm", "mlx-qwen3"):
            named = "without a seed" if seed is None else "with a seed"
            said = _cancel(engine, parent / "dense", seed)
            print(f"a client that leaves, {named}: {engine} {said}", flush=True)


def _outcome(ranks: list[Any]) -> str:
    deadline = time.monotonic() + PATIENCE
    results = []
    try:
        for rank in ranks:
            results.append(rank.communicate(timeout=max(1.0, deadline - time.monotonic())))
    except subprocess.TimeoutExpired:
        return f"does not end within {PATIENCE:.0f} s"
    finally:
        _kill(ranks)
    if all(rank.returncode == 0 for rank in ranks) and "done" in results[0][0]:
        return "does it"
    errors = [error.strip().splitlines()[-1][:160] for _, error in results if error.strip()]
    return f"says: {errors[0] if errors else 'nothing'}"


def _death(ranks: list[Any]) -> str:
    """Kill rank 1 while tokens come: how does rank 0 end?"""
    try:
        if ranks[0].stdout.readline() != "begun\n":
            return "did not begin"
        os.kill(ranks[1].pid, signal.SIGKILL)
        since = time.perf_counter()
        _, error = ranks[0].communicate(timeout=PATIENCE)
        lines = [line for line in error.strip().splitlines() if not line.startswith("[ring]")]
        last = lines[-1][:160] if lines else f"no line, exit code {ranks[0].returncode}"
        return f"ends after {time.perf_counter() - since:.1f} s: {last}"
    except subprocess.TimeoutExpired:
        return f"does not end within {PATIENCE:.0f} s"
    finally:
        _kill(ranks)


def _cancel(engine: str, folder: Path, seed: int | None) -> str:
    """A server over two ranks; a client leaves in the middle of an answer; is the next one answered?"""
    sys.path.insert(0, str(ROOT / "tests"))
    from distributed.ranks import start_ranks
    from free_ports import free_ports

    port = free_ports(1)[0]
    if engine == "mlx-lm":
        words = ["-m", "mlx_lm", "server", "--model", str(folder), "--port", str(port)]
    else:
        words = ["-m", "mlx_qwen3", "serve", "--model", str(folder), "--port", str(port)]
        words += ["--distributed", "tensor"]
    ranks = start_ranks(2, folder.parent, words, MLX_QWEN3_PLAIN="1", HF_HUB_OFFLINE="1")
    try:
        _wait_for_port(port)
        body: dict[str, Any] = {"model": str(folder) if engine == "mlx-lm" else "default", "prompt": "abc"}
        body |= {"max_tokens": 3000, "stream": True} | ({} if seed is None else {"seed": seed})
        with _post(port, body) as answer:
            for _ in range(4):
                answer.readline()
        time.sleep(1)
        try:
            with _post(port, body | {"max_tokens": 2, "stream": False}) as answer:
                json.loads(answer.read())
        except OSError as error:
            return f"does not answer the next request within {PATIENCE:.0f} s ({error})"
        return "answers the next request"
    except (OSError, TimeoutError) as error:
        return f"did not serve: {error}"
    finally:
        _kill(ranks)


def _post(port: int, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    return urllib.request.urlopen(request, timeout=PATIENCE)


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError("nothing listens") from None
            time.sleep(0.2)


def _kill(ranks: list[Any]) -> None:
    for rank in ranks:
        rank.kill()
        rank.communicate()
