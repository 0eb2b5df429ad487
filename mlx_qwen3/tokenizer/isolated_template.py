"""Runs a stranger's chat template in a process of its own, which is stopped when it takes too much.

A template is a program. What one costs cannot be told from its text: a filter over a constant can take
all memory, a deep value can overflow the stack. The process is started when the template is first
compiled, stays for all that is rendered, and is replaced after it was stopped. template_process.py has its
limits: processor time is limited by the kernel everywhere, memory on Linux. macOS knows no such limit, so
this process looks at the memory of the other one while it waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import psutil

import mlx_qwen3
from mlx_qwen3.errors import MessageError, TemplateError
from mlx_qwen3.tokenizer.template_process import LENGTH, answer_limit, memory_limit, seconds_limit

MAX_SOURCE_CHARACTERS = 2**20
_POLL_SECONDS = 0.01
_START_SECONDS = 60.0
_STOPPED = "the chat template runs away: it was stopped"
_KEPT_VARIABLES = ("PATH", "TZ", "LANG", "LC_ALL", "LC_TIME")
_PROGRAM = "import sys; sys.path[:] = {path!r}; from mlx_qwen3.tokenizer.template_process import main; main()"


class IsolatedTemplate:
    """A template compiled and rendered in another process. Threads may share it.

    Attributes:
        variables: The names that it reads from outside.
        strings: Its text, string constants and attribute names.
    """

    def __init__(self, source: str) -> None:
        """Raises TemplateError if `source` cannot be compiled, or takes too much time or memory for it."""
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise TemplateError(
                f"the chat template has {len(source):,} characters; at most {MAX_SOURCE_CHARACTERS:,} can be"
            )
        self._source = source
        self._lock = threading.Lock()
        self._process: _TemplateProcess | None = None
        compiled = self._start()
        self.variables = frozenset(compiled["variables"])
        self.strings = frozenset(compiled["strings"])

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text of the template for `variables`.

        Raises MessageError if the template refuses the conversation, and TemplateError if it fails, reaches
        outside its sandbox or takes too much time or memory.
        """
        with self._lock:
            if self._process is None or not self._process.is_usable:
                self._start()
            assert self._process
            text: str = self._process.ask({"variables": variables})["text"]
            return text

    def _start(self) -> dict[str, Any]:
        """Start a process and compile the template in it; what it says of the template."""
        self._process = _TemplateProcess()
        try:
            return self._process.ask({"source": self._source})
        except BaseException:
            self._process.end()
            raise


class _TemplateProcess:
    """One process. It is ended by its first runaway, and when this object is deleted."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        try:
            self._child = subprocess.Popen(
                _command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                # No secret of this process is in its environment. PLAIN: it needs no BLAS.
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
                | {"MLX_QWEN3_PLAIN": "1"},
            )
        except OSError as error:
            raise TemplateError(f"no process can be started for the chat template: {error}") from error
        self.end = weakref.finalize(self, _end, self._child, self._owner)
        self._deadline, self._most_bytes = time.monotonic() + _START_SECONDS, memory_limit(0)
        if self._receive(LENGTH.size + 2) is None:  # "ready"
            self.end()
            raise TemplateError(f"no process for the chat template starts with {_command()[0]}")

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked. After a fork the process belongs to the parent."""
        return self.end.alive and self._owner == os.getpid()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request. Raises MessageError and TemplateError. A runaway ends the process."""
        data = json.dumps(request).encode()
        size = len(data)
        # Processor time is limited; this holds where the process does not run at all.
        self._deadline = time.monotonic() + _START_SECONDS + 10 * seconds_limit(size)
        self._most_bytes = (self._idle_bytes() or 0) + memory_limit(size)
        try:
            answer = self._exchange(data)
        except BaseException:
            self.end()
            raise
        if answer is None or "too_long" in answer:
            self.end()
            raise TemplateError(_STOPPED)
        if "refused" in answer:
            raise MessageError(str(answer["refused"]))
        if "failed" in answer:
            if str(answer["failed"]).endswith("it was stopped"):
                self.end()
            raise TemplateError(str(answer["failed"]))
        return answer

    def _exchange(self, data: bytes) -> dict[str, Any] | None:
        """Send a request and receive its answer; None if the process died or was stopped."""
        assert self._child.stdin
        try:
            self._child.stdin.write(LENGTH.pack(len(data)) + data)
            self._child.stdin.flush()
        except OSError:
            return None
        header = self._receive(LENGTH.size)
        if header is None or (size := LENGTH.unpack(header)[0]) > answer_limit(len(data)):
            return None
        answer = self._receive(size)
        return None if answer is None else dict(json.loads(answer))

    def _receive(self, size: int) -> bytes | None:
        """So many bytes from the process; None if it died or takes too much."""
        assert self._child.stdout
        handle = self._child.stdout.fileno()
        data = bytearray()
        while len(data) < size:
            if not _is_readable(handle):
                if time.monotonic() > self._deadline or (self._idle_bytes() or 0) > self._most_bytes:
                    return None
            elif chunk := os.read(handle, min(size - len(data), 2**20)):
                data += chunk
            else:
                return None
        return bytes(data)

    def _idle_bytes(self) -> int | None:
        """The memory of the process now; None if it is gone."""
        try:
            return int(psutil.Process(self._child.pid).memory_info().rss)
        except psutil.Error:
            return None


def _is_readable(handle: int) -> bool:
    if hasattr(select, "poll"):  # select() takes no handle above 1,023
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(_POLL_SECONDS * 1000))
    return bool(select.select([handle], [], [], _POLL_SECONDS)[0])


def _command() -> list[str]:
    """The command line that runs template_process.py with the modules of this process."""
    executable = os.fsdecode(spawn.get_executable() or "")  # as multiprocessing.set_executable sets it
    if not executable or getattr(sys, "frozen", False):
        raise TemplateError(
            "a chat template that is not one of Qwen3's own needs a Python to run it in: name one with "
            "multiprocessing.set_executable"
        )
    path = [*filter(None, sys.path), str(Path(mlx_qwen3.__file__).parent.parent)]
    path = [str(Path(entry).absolute()) for entry in path]
    return [executable, "-I", "-S", "-c", _PROGRAM.format(path=path)]


def _end(child: subprocess.Popen[bytes], owner: int) -> None:
    """Kill the process, unless it belongs to the parent of this one."""
    for stream in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            stream.close()  # type: ignore[union-attr]
    if owner == os.getpid():
        child.kill()
        child.wait()
