"""Runs our command line in a process of its own that starts within a tenth of a second.

It is a copy (`fork`) of a process that has imported the program, and has computed nothing yet. Tests about
the start of the program, or about what libraries read while they are imported, start a new Python.
As a program this is the process that is copied: it takes requests from a socket.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

# A copy of a process that has loaded Metal is not sure to run.
CAN_FORK = sys.platform == "linux"
COMMAND = [sys.executable, "-c", "from mlx_qwen3.cli.app import main; main()"]


def run(arguments: Sequence[str], stdin: str = "", seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command line with these arguments and standard input, as `subprocess.run` does."""
    if not CAN_FORK:
        command = [*COMMAND, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        status = _run(arguments, [given, out, err], seconds)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(list(arguments), status, *texts)


def _run(arguments: Sequence[str], streams: Sequence[IO[bytes]], seconds: float) -> int:
    """The exit code of the program with these standard streams; negative for a signal."""
    asked = {"arguments": list(arguments), "environment": dict(os.environ), "folder": str(Path.cwd())}
    reports, theirs = socket.socketpair()
    with reports, tempfile.TemporaryFile() as request:
        request.write(json.dumps(asked).encode())
        request.flush()
        with theirs:
            files = [theirs.fileno(), request.fileno(), *(stream.fileno() for stream in streams)]
            socket.send_fds(_starter(os.getpid()), [b"x"], files)
        pid = int(reports.recv(12))
        reports.settimeout(seconds)
        try:
            return int(reports.recv(12))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise


@cache
def _starter(pid: int) -> socket.socket:
    """The socket of the process that is copied, for this process."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def end() -> None:
        if os.getpid() == pid:
            ours.close()
            process.wait()

    atexit.register(end)
    return ours


def _serve(requests: socket.socket) -> list[str]:
    """Make a copy for each request. Returns in the copy, with its arguments."""
    while True:
        message, files, *_ = socket.recv_fds(requests, 1, 5)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            return _start(*files)
        for file in files:
            os.close(file)
        os.wait()  # for the copy, which has become two and ended


def _start(report: int, request: int, *streams: int) -> list[str]:
    """In the copy: one process to run the program, and one to report how that ended."""
    if os.fork():
        os._exit(0)
    if pid := os.fork():
        os.write(report, f"{pid:12}".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(report, f"{status:12}".encode())
        os._exit(0)
    os.close(report)
    with open(request, "rb") as file:
        file.seek(0)
        asked: dict[str, Any] = json.loads(file.read())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    random.seed()
    return [str(argument) for argument in asked["arguments"]]


if __name__ == "__main__":
    sys.path.pop(0)  # the tests' own modules
    import mlx.core  # noqa: F401

    import mlx_qwen3.cli.chat.repl  # noqa: F401
    from mlx_qwen3.cli.app import main

    sys.argv = ["-c", *_serve(socket.socket(fileno=int(sys.argv[1])))]
    main()
