"""Asks at a terminal about random tools and calls, for test_approval_terminal.py, which reads the screen.

    python approval_program.py SEED COUNT GO ANSWERS

GO and ANSWERS are FIFOs. Each question waits for a byte from GO; its answer is a JSON line to ANSWERS.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from mlx_qwen3.tools import Question, Tool

WIDTH = 80
TRICKS = (
    *(
        "\x1b[2J",
        "\x1b]52;c;eA==\x07",
        "\x9b1A",
        "\x85",
        "\r",
        "\n",
        "\t",
        "  ",
        "\u202e",
        "\u2066",
        "\u200b",
    ),
    *(
        "\u3164",
        "\ufe0f",
        "\U000e0041",
        "e\u0301",
        "Allow read {}?",
        "[y/n] ",
        "| ",
        "y: yes, once",
        "<U+0041>",
    ),
    *("\u1100\u1161\u11a8", "\ud83d", "界", "👨\u200d👩\u200d👧", '"}?', "\\u0041"),
)


class PlainTool(Tool):
    """A tool that cannot be called."""

    async def call(self, arguments: dict[str, Any]) -> Any:
        raise NotImplementedError


def random_text(dice: random.Random, longest: int) -> str:
    """Text of all of Unicode, with what could deceive a reader."""
    parts = []
    for _ in range(dice.randrange(1, longest)):
        kind = dice.random()
        if kind < 0.4:
            parts.append(chr(dice.randrange(32, 127)))
        elif kind < 0.6:
            parts.append(dice.choice(TRICKS))
        else:
            parts.append(chr(dice.randrange(sys.maxunicode + 1)))
    return "".join(parts)


def random_questions(seed: int, count: int) -> Iterator[Question]:
    """Questions about calls whose every text is random."""
    dice = random.Random(seed)
    for _ in range(count):
        schema = {"type": "object", "properties": {random_text(dice, 5): {"type": random_text(dice, 5)}}}
        server = dice.choice(["", random_text(dice, 8)])
        tool = PlainTool(random_text(dice, 12), random_text(dice, 60), schema, server, random_text(dice, 20))
        arguments = {random_text(dice, 6): random_text(dice, 80) for _ in range(dice.randrange(4))}
        yield Question(tool, arguments, dice.random() < 0.3, dice.random() < 0.1)


class NoKeys:
    """Keys that nobody waits for."""

    @contextlib.contextmanager
    def paused(self) -> Iterator[list[Any]]:
        yield []


def main() -> None:
    from mlx_qwen3.cli.chat.terminal.ask_permission import PermissionPrompt
    from mlx_qwen3.cli.chat.terminal.tty import quiet_terminal
    from mlx_qwen3.cli.console import SafeConsole
    from mlx_qwen3.cli.output import write_codes

    seed, count = map(int, sys.argv[1:3])
    go, answers = os.open(sys.argv[3], os.O_RDONLY), os.open(sys.argv[4], os.O_WRONLY)
    printer = SimpleNamespace(pause=lambda: None)
    keys: Any = NoKeys()
    prompt = PermissionPrompt(SafeConsole(width=WIDTH), printer, keys, lambda: None)  # type: ignore[arg-type]
    with quiet_terminal():
        for question in random_questions(seed, count):
            os.read(go, 1)
            write_codes("\x1b[2J\x1b[H")
            answer = prompt(question)
            line = json.dumps([answer.choice.value, answer.reason]) + "\n"
            os.write(answers, line.encode())


if __name__ == "__main__":
    main()
