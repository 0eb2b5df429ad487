"""What a person reads at the question before a tool runs is what runs; nothing typed before answers it."""

from __future__ import annotations

import json
import os
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

import pexpect
import pyte
from e2e.approval_program import WIDTH, random_questions

from mlx_qwen3.tools.approval_text import MARGIN

LINES = 200
COUNT = 500 if os.environ.get("MLX_QWEN3_LONG_TESTS") else 25
ROOT = Path(__file__).parents[2]


class Asked:
    """The program in a pseudo-terminal, and its screen."""

    def __init__(self, folder: Path, seed: int, count: int):
        fifos = [folder / "go", folder / "answers"]
        for fifo in fifos:
            os.mkfifo(fifo)
        program = str(Path(__file__).with_name("approval_program.py"))
        self._child = pexpect.spawn(
            sys.executable,
            [program, str(seed), str(count), *map(str, fifos)],
            dimensions=(LINES, WIDTH),
            env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "COLUMNS": str(WIDTH)},
            timeout=60,
        )
        self._go = os.open(fifos[0], os.O_WRONLY)
        self._answer_file = fifos[1].open()
        self._screen = pyte.Screen(WIDTH, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""

    def press(self, keys: str) -> None:
        self._child.send(keys)

    def ask(self) -> list[str]:
        """Let the next question be asked; the lines on the screen once it waits for an answer."""
        self._screen.reset()
        self.raw = b""
        os.write(self._go, b"x")
        deadline = time.monotonic() + 60
        while not (lines := self._lines()) or lines[-1] != "[y/n]":
            assert time.monotonic() < deadline, self._lines()
            self._read()
        return lines[:-1]

    def answer(self) -> list[str]:
        """The answer that the program took: choice and reason."""
        return list(json.loads(self._answer_file.readline()))

    def close(self) -> None:
        self._child.close(force=True)
        os.close(self._go)
        self._answer_file.close()

    def _lines(self) -> list[str]:
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def _read(self) -> None:
        try:
            data = self._child.read_nonblocking(65536, 0.05)
        except pexpect.TIMEOUT:
            return
        self.raw += data
        self._stream.feed(data)
        if b"\x1b[6n" in data:  # the toolkit asks where the cursor is
            self._child.send(f"\x1b[{self._screen.cursor.y + 1};{self._screen.cursor.x + 1}R")


def read_back(lines: list[str]) -> tuple[str, Any]:
    """The tool's key and the arguments, read from the screen as a person would."""
    allow = max(at for at, line in enumerate(lines) if line.startswith("Allow "))
    end = next(at for at in range(allow + 1, len(lines)) if not lines[at].startswith(MARGIN))
    call = joined(lines[allow:end]).removeprefix("Allow ").removesuffix("?")
    if call.endswith(" with these arguments"):
        key = call.removesuffix(" with these arguments")
        first = max(at for at in range(allow) if lines[at] == "Arguments of the call:") + 1
        arguments = joined(lines[first:allow])
    else:
        key, arguments = split_key(call)
    return json.loads(spelled(key)) if key.startswith('"') else key, json.loads(spelled(arguments))


def joined(lines: list[str]) -> str:
    """Wrapped lines as one."""
    return "".join(line.removeprefix(MARGIN) for line in lines)


def split_key(text: str) -> tuple[str, str]:
    """A key, quoted or not, and what follows it after a space."""
    match = re.match(r'"(?:[^"\\]|\\.)*"|[^ "]+', text)
    assert match
    return match[0], text[match.end() + 1 :]


def spelled(text: str) -> str:
    """`text` with <U+XXXX> as JSON escapes of these characters."""

    def escape(match: re.Match[str]) -> str:
        return json.dumps(chr(int(match[1], 16)))[1:-1]

    return re.sub(r"<U\+([0-9A-F]{4,6})>", escape, text)


def test_the_screen_says_what_runs_and_early_keys_do_not_answer(tmp_path: Path) -> None:
    dice = random.Random(1)
    asked = Asked(tmp_path, 7, COUNT)
    try:
        for number, question in enumerate(random_questions(7, COUNT)):
            asked.press(dice.choice(["", "y\r", "yyy", "t\r\r", "n no\r", "s\r", "y"]))
            lines = asked.ask()
            key, arguments = read_back(lines)
            expected = json.loads(json.dumps(question.arguments))
            assert (key, arguments) == (question.tool.key, expected), f"question {number}: {lines}"
            assert b"\x1b]" not in asked.raw
            assert not re.search("[\x80-\x9f\u202a-\u202e\u2066-\u2069\u200b]", asked.raw.decode())
            keys, choice = dice.choice([("y", "once"), ("t", "tool"), ("n because", "deny")])
            asked.press(keys + "\r")
            assert asked.answer() == [choice, keys.partition(" ")[2]]
    finally:
        asked.close()
