"""Starts the other ranks: on other machines by ssh, on this one as processes. This process becomes rank 0."""

from __future__ import annotations

import atexit
import os
import random
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from mlx_qwen3.distributed.hosts import Host, Hosts
from mlx_qwen3.distributed.start.meeting import WatchedRank, watch_rank
from mlx_qwen3.distributed.start.watcher import last_line
from mlx_qwen3.errors import DistributedError

PORTS = range(20_000, 45_000)
# For ranks to end by themselves once rank 0 has.
END_SECONDS = 5.0
START_SECONDS = 120.0
RUNS = "runs"  # what a started rank says first, on stdout
FOLLOW = ("-m", "mlx_qwen3", "follow")


def start_ranks(hosts: Hosts, on_failure: Callable[[str], None]) -> list[StartedRank]:
    """Start all ranks but the first, which this process becomes.

    Returns once each of them runs. MLX's way to meet, which follows, can neither be interrupted nor told that
    one will not come; `Meeting` watches them then. on_failure: called on a thread of its own when a rank
    fails later, with a line. Raises DistributedError if a rank cannot be started.
    """
    port = random.choice(PORTS)
    content = hosts.file_content(port)
    path = Path(tempfile.mkdtemp(prefix="mlx-qwen3-")) / "hosts.json"
    path.write_text(content)
    os.environ.update(hosts.environment_of(0, port, str(path)))
    started = []
    for rank, host in list(enumerate(hosts.hosts))[1:]:
        command = command_of(hosts, rank, port, content)
        started.append(StartedRank(rank, host, command, on_failure))
    atexit.register(end_ranks, started)
    for member in started:
        member.wait_until_it_runs()
        watch_rank(member.watched)
    return started


def command_of(hosts: Hosts, rank: int, port: int, content: str) -> list[str]:
    """What to run for `rank`: a shell here, or on its machine, that writes MLX's file and starts Python."""
    host = hosts.hosts[rank]
    variables = hosts.environment_of(rank, port, "$file")
    exports = " ".join(
        f'{name}="$file"' if value == "$file" else f"{name}={shlex.quote(value)}"
        for name, value in variables.items()
    )
    python = shlex.join([host.python or sys.executable, *FOLLOW])
    script = f'file=$(mktemp) && printf %s {shlex.quote(content)} > "$file" && exec env {exports} {python}'
    if host.is_local:
        return ["/bin/sh", "-c", script]
    return ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "--", host.ssh, script]


class StartedRank:
    """A rank that was started. What it says on stderr is kept, for the case that it fails.

    In a file, not a pipe: `Meeting` reads it too, while this process may hold its interpreter.
    """

    def __init__(self, rank: int, host: Host, command: list[str], on_failure: Callable[[str], None]):
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the rank
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._name = f"rank {rank} ({host.ssh})"
        self._on_failure = on_failure
        self._is_over = self._runs = False
        self._is_decided = threading.Event()  # whether it runs
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        threading.Thread(target=self._read_first_line, daemon=True).start()

    @property
    def watched(self) -> WatchedRank:
        """What tells of its end while this process cannot listen."""
        assert self.process.stdout is not None  # it is a pipe
        return WatchedRank(self._name, self.process.pid, self.process.stdout.fileno(), self._stderr.fileno())

    def wait_until_it_runs(self) -> None:
        """Wait for its first line, which says that it has started. Raises DistributedError."""
        if not self._is_decided.wait(START_SECONDS):
            raise DistributedError(f"{self._name} did not start within {START_SECONDS:.0f} s")
        if not self._runs:
            self._watcher.join(END_SECONDS)
            raise DistributedError(self._ended())

    def end(self, seconds: float) -> None:
        """Wait for it to end, or end it."""
        self._is_over = True
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _watch(self) -> None:
        code = self.process.wait()
        if code and not self._is_over and self._runs:
            self._on_failure(self._ended())

    def _read_first_line(self) -> None:
        assert self.process.stdout is not None  # it is a pipe
        self._runs = self.process.stdout.readline().strip() == RUNS
        self._is_decided.set()

    def _ended(self) -> str:
        code = self.process.wait()
        return f"{self._name} ended: {last_line(self._stderr.fileno()) or f'exit code {code}'}"


def end_ranks(started: list[StartedRank]) -> None:
    """Wait a moment for the ranks to end, then end those that have not."""
    for rank in started:
        rank.end(END_SECONDS)
