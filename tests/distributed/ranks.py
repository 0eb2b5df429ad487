"""Starts several ranks on this machine, connected by MLX's ring over loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from free_ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240  # for all ranks to end; far more than they need


def start_ranks(
    size: int, folder: Path, arguments: Sequence[str], **options: str
) -> list[subprocess.Popen[str]]:
    """Start `size` processes of this Python with `arguments`, rank 0 first. options: environment."""
    hosts = folder / f"ring{os.getpid()}-{size}.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(size)]))
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    base = {**os.environ, **threads, "MLX_HOSTFILE": str(hosts), "PYTHONPATH": path, **options}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**base, "MLX_RANK": str(rank)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def finish(ranks: list[subprocess.Popen[str]], seconds: float = SECONDS) -> list[tuple[int, str, str]]:
    """Wait for all ranks: their exit codes, outputs and errors."""
    results = []
    try:
        for rank in ranks:
            out, err = rank.communicate(timeout=seconds)
            results.append((rank.returncode, out, err))
    finally:
        for rank in ranks:
            rank.kill()
    return results
