"""Watches the ranks while they meet, from a process of its own: MLX's `init` holds the interpreter.

A rank that was started here and ends before, or a meeting that takes too long, ends this process with a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WATCHER = Path(__file__).with_name("watcher.py")
# For all ranks to be started and to meet.
MEET_SECONDS = 120.0
LATE = "the ranks did not meet within {:.0f} s; one was not started, or not reached"


@dataclass(frozen=True)
class WatchedRank:
    """A rank that this process started.

    Attributes:
        name: Of the rank and its machine, for people.
        process: Id of the process that runs it, or of its ssh.
        out: Read end of a pipe that only the rank holds: it hangs up when the rank ends.
        err: The file that it writes its stderr to.
    """

    name: str
    process: int
    out: int
    err: int


_watched: list[WatchedRank] = []


def watch_rank(rank: WatchedRank) -> None:
    """Have `rank` watched during the next meeting."""
    _watched.append(rank)


def meeting_seconds() -> float:
    """How long the ranks may take to meet."""
    try:
        return max(1.0, float(os.environ.get("MLX_QWEN3_MEET_SECONDS", "")))
    except ValueError:
        return MEET_SECONDS


class Meeting:
    """While it is open, a process beside this one watches the ranks and the clock."""

    def __init__(self, ranks: Sequence[WatchedRank] | None = None):
        self._ranks = list(_watched if ranks is None else ranks)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Meeting:
        seconds = meeting_seconds()
        task = {
            "process": os.getpid(),
            "seconds": seconds,
            "late": LATE.format(seconds),
            "ranks": [[rank.name, rank.process, rank.out, rank.err] for rank in self._ranks],
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WATCHER), json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[fd for rank in self._ranks for fd in (rank.out, rank.err)],
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()  # which ends it
            self._process.wait()
