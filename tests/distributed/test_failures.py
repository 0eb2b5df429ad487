"""A rank that dies, stops, stalls or differs ends the run on every rank, with a line that names it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from distributed.ranks import finish, start_ranks
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, write_checkpoint

WORKER = Path(__file__).with_name("endless.py")
# The limit is 15 s on a machine of its own; a busy one is given more before the test says that it hangs.
SECONDS = 60


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, DENSE | {"vocab_size": 320})
    return write_byte_tokenizer(folder)


def start(size: int, folder: Path, tmp_path: Path, mode: str, phase: str, **options: str) -> list[Any]:
    arguments = [str(WORKER), str(folder), mode, phase]
    return start_ranks(size, tmp_path, arguments, MLX_QWEN3_PLAIN="1", **options)


def wait_for_begin(rank: subprocess.Popen[str]) -> None:
    assert rank.stdout is not None
    line = rank.stdout.readline()
    assert line == "begun\n", (line, rank.stderr and rank.stderr.read())


@pytest.mark.parametrize(
    ("mode", "victim", "blow", "phase"),
    [
        ("tensor", 1, signal.SIGKILL, "prefill"),
        ("pipeline", 1, signal.SIGSTOP, "decode"),
        ("tensor", 0, signal.SIGSTOP, "prefill"),
    ],
)
def test_a_rank_that_is_gone_ends_the_others(
    mode: str, victim: int, blow: int, phase: str, checkpoint: Path, tmp_path: Path
) -> None:
    # Three seconds, not ten, until silence is noticed: MLX's ring keeps a core busy while it waits.
    ranks = start(2, checkpoint, tmp_path, mode, phase, MLX_QWEN3_SILENCE_SECONDS="3")
    try:
        wait_for_begin(ranks[0])
        time.sleep(0.3)
        os.kill(ranks[victim].pid, blow)
        code, _, error = finish([ranks[1 - victim]], SECONDS)[0]
    finally:
        for rank in ranks:
            rank.kill()
    said = (
        "has given no sign of life" if blow == signal.SIGSTOP else "ended, or the connection to it was lost"
    )
    assert code == 1
    # MLX's threads write lines of their own, piece by piece and at once: "32" may stand alone.
    lines = [line for line in error.splitlines() if "error: " in line]
    assert len(lines) == 1, error
    assert f"error: rank {victim} (" in lines[0]
    assert said in lines[0]
