"""Runs the real chat.py in a pseudo-terminal: types keys and reads the screen."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pexpect
import psutil
import pyte

from mlx_qwen3.backend.native.library import FOLDER_VARIABLE
from mlx_qwen3.cli.chat.terminal.region import BEGIN

ROOT = Path(__file__).parent.parent.parent
FRAME = BEGIN.encode()
# Of the tests' environment, what the program is given. With the kernels' folder none compiles them anew.
THREADS = ("MLX_QWEN3_THREADS", "OPENBLAS_NUM_THREADS")
INHERITED = ("PATH", "LANG", "VIRTUAL_ENV", "PYTHONPATH", *THREADS, FOLDER_VARIABLE)


class Screen(pyte.Screen):
    """With a scrollback, `above`. The screen of pyte that has one takes three times as long."""

    def __init__(self, columns: int, lines: int):
        self.above: list[str] = []
        super().__init__(columns, lines)

    def reset(self) -> None:
        super().reset()
        self.above.clear()

    def index(self) -> None:
        top, bottom = self.margins or (0, self.lines - 1)
        if self.cursor.y == bottom:
            line = self.buffer[top]
            self.above.append("".join(line[column].data for column in sorted(line)).rstrip())
        super().index()

    def erase_in_display(self, how: int = 0, *arguments: Any, **options: Any) -> None:
        super().erase_in_display(how, *arguments, **options)
        if how == 3:
            self.above.clear()


class Terminal:
    """`with Terminal(home, "--seed", "1") as terminal: terminal.type("hi"); terminal.wait("Hello")`."""

    def __init__(
        self,
        home: Path,
        *arguments: str,
        columns: int = 100,
        lines: int = 40,
        environment: dict[str, str] | None = None,
        shell: str = "",
        program: Path = ROOT / "chat.py",
    ):
        """home: an empty folder for the chat's files. The model is the demo, unless `arguments` name another
        or contain an empty string, which names none. shell: a line of a shell with job control, in which
        {} is the chat. program: what is run in place of chat.py."""
        model = () if {"--model", ""} & {*arguments} else ("--model", "demo")
        # --stats: the figures mark the end of a turn.
        arguments = (*model, "--stats", *filter(None, arguments))
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        command = [sys.executable, str(program), *arguments]
        if shell:
            command = ["bash", "-mc", shell.format(shlex.join(command))]
        self._child = pexpect.spawn(
            command[0],
            command[1:],
            dimensions=(lines, columns),
            env={
                **inherited,
                "HOME": str(home),
                "TERM": "xterm-256color",
                **(environment or {}),
            },
            timeout=90,
        )
        self._home = home
        self._screen = Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._shown: str | None = None
        self.raw = b""

    def read(self, seconds: float = 0.05) -> None:
        """Read what the program has written, waiting at most `seconds` for it."""
        try:
            data = self._child.read_nonblocking(65536, seconds)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return
        self.raw += data
        self._stream.feed(data)
        self._shown = None
        if b"\x1b[6n" in data:  # prompt_toolkit asks where the cursor is
            self._child.send(f"\x1b[{self._screen.cursor.y + 1};{self._screen.cursor.x + 1}R")

    def text(self) -> str:
        """All text shown so far, the scrollback first."""
        if self._shown is None:
            below = [line.rstrip() for line in self._screen.display]
            self._shown = "\n".join([*self._screen.above, *below])
        return self._shown

    def wait(self, *wanted: str, seconds: float = 90, since: int = 0) -> str:
        """Read until one of `wanted` is on the screen after `since`; fails with the screen's text."""
        deadline = time.monotonic() + seconds
        while not any(text in self.text()[since:] for text in wanted):
            assert time.monotonic() < deadline, f"{wanted} did not appear on\n{self.text()}"
            self.read()
            assert self._child.isalive() or self._has_more(), f"ended early:\n{self.text()}"
        return self.text()

    def _has_more(self) -> bool:
        before = len(self.raw)
        self.read()
        return len(self.raw) > before

    def type(self, text: str) -> int:
        """Type a line and press Enter; returns the position before it, for `since`.

        Waits a moment for a turn to end, which hides the cursor: what it draws moves the lines below.
        """
        deadline = time.monotonic() + 3
        while self._screen.cursor.hidden and time.monotonic() < deadline:
            self.read()
        before = self.mark()
        self._child.send(text + "\r")
        return before

    def say(self, text: str, *wanted: str) -> str:
        """Type a line and wait for one of `wanted` after it; returns the text from that line on."""
        before = self.type(text)
        return self.wait(*wanted, since=before)[before:]

    def paste(self, text: str) -> int:
        """Paste `text` as terminals do; returns the position before it."""
        before = self.mark()
        self._child.send(f"\x1b[200~{text}\x1b[201~")
        return before

    @property
    def pid(self) -> int:
        """The program's process."""
        return int(self._child.pid)

    def mark(self) -> int:
        """The position of the cursor's line, for `wait(since=...)`. The text above it does not change."""
        below = len(self._screen.display) - self._screen.cursor.y
        return len("\n".join(self.text().split("\n")[:-below]))

    @property
    def is_echoing(self) -> bool:
        """Whether the terminal shows keys by itself, as it does for a program that reads whole lines."""
        return bool(termios.tcgetattr(self._child.child_fd)[3] & termios.ECHO)

    def settle(self, seconds: float = 0.2) -> None:
        """Read until the program writes nothing for `seconds`, at most 50 times as long."""
        deadline = time.monotonic() + 50 * seconds
        written = -1
        while written != len(self.raw) and time.monotonic() < deadline:
            written = len(self.raw)
            self.read(seconds)

    def frames_per_second(self, seconds: float) -> float:
        """How often the program draws, measured over `seconds`."""
        self.read()
        before, start = len(self.raw), time.monotonic()
        while time.monotonic() - start < seconds:
            self.read(0.02)
        return self.raw[before:].count(FRAME) / (time.monotonic() - start)

    def conversation(self) -> dict[str, Any]:
        """The only saved conversation, once it is saved."""
        deadline = time.monotonic() + 60
        while not (paths := list(self._home.rglob("conversations/*.json"))):
            assert time.monotonic() < deadline, "nothing was saved"
            self.read()
        (path,) = paths
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    def clear_line(self) -> None:
        """Clear the typed text with Ctrl-C and wait for an empty prompt."""
        self._child.send("\x03")
        deadline = time.monotonic() + 90
        while ">" not in [line.strip() for line in self._screen.display]:
            assert time.monotonic() < deadline, f"not cleared:\n{self.text()}"
            self.read()

    def cpu_seconds(self) -> float:
        """CPU time the program has used."""
        times = psutil.Process(self._child.pid).cpu_times()
        return float(times.user + times.system)

    def kill(self) -> None:
        """Kill the program, as a crash would."""
        self._child.kill(signal.SIGKILL)
        self._child.wait()

    def press(self, keys: str) -> None:
        self._child.send(keys)

    def resize(self, columns: int, lines: int) -> None:
        self._child.setwinsize(lines, columns)
        self._screen.resize(lines, columns)
        self._shown = None

    def leave(self) -> int:
        """Press Ctrl-D; the program's exit code."""
        self._child.send("\x04")
        return self.wait_for_end()

    def wait_for_end(self, seconds: float = 90) -> int:
        """Wait until the program has ended by itself; its exit code."""
        deadline = time.monotonic() + seconds
        while self._child.isalive():
            assert time.monotonic() < deadline, f"still running:\n{self.text()}"
            self.read()
        self._child.wait()
        return int(self._child.exitstatus if self._child.exitstatus is not None else -1)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in range(3):
            self.read(0.02)
        if self._child.isalive():
            self.kill()
        self._child.close(force=True)
        if error is None:
            assert "Traceback" not in self.text()
            assert "<think>" not in self.text()
            assert "</think>" not in self.text()
