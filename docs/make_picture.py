"""Draws docs/chat.svg, a short chat with the demo as a terminal shows it: `python docs/make_picture.py`.

The real program runs in a pseudo-terminal (needs the extra `test`). `--light FILE` draws it on a light
background.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import tempfile
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME
from rich.text import Text

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT = 96, 60
MESSAGES = ["what is 347+285?", "bonjour", "how do I convert a model? /no_think"]
UNSENT = "and how do I attach a file?"
SGR = re.compile(rb"\x1b\[([\d;]*)m")
# The emulator's names for colours that a terminal has under others.
COLOURS = {"brown": "yellow", "default": "default"}


class Screen:
    """The program in a pseudo-terminal, and what it shows."""

    def __init__(self, home: str, environment: dict[str, str]):
        command = [str(ROOT / "chat.py"), "--model", "demo", "--seed", "2"]
        # As a user reads it who has installed the program: its name, and no path of this machine.
        variables = {**os.environ, "HOME": home, "TERM": "xterm-256color", **environment}
        size = (HEIGHT, WIDTH)
        self._child = pexpect.spawn(sys.executable, command, env=variables, dimensions=size, timeout=None)
        self.screen = pyte.Screen(WIDTH, HEIGHT)
        self._stream = pyte.ByteStream(self.screen)

    def send(self, keys: str) -> None:
        self._child.send(keys)

    def settle(self, wanted: str) -> None:
        """Read until the last lines show `wanted`, and nothing more comes for a second."""
        quiet = 0
        while quiet < 10 or wanted not in "\n".join(line.strip() for line in self.screen.display):
            try:
                data = self._child.read_nonblocking(65536, 0.1)
            except pexpect.TIMEOUT:
                quiet += 1
                continue
            quiet = 0
            self._stream.feed(SGR.sub(_grey_for_faint, data))
            if b"\x1b[6n" in data:  # the toolkit asks where the cursor is
                self.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")

    def close(self) -> None:
        self.send("\x15\x04")  # Ctrl-U, Ctrl-D
        self._child.expect(pexpect.EOF)


def _grey_for_faint(match: re.Match[bytes]) -> bytes:
    """The emulator knows no faint text, which is grey here."""
    return b"\x1b[" + b";".join(b"90" if part == b"2" else part for part in match[1].split(b";")) + b"m"


def chat(environment: dict[str, str]) -> Text:
    """What the screen shows of the chat in the end."""
    with tempfile.TemporaryDirectory() as home:
        terminal = Screen(home, environment)
        terminal.settle("\n>\n")
        for message in MESSAGES:
            terminal.send(message + "\r")
            terminal.settle(f"▌ {message}")  # the line is still empty before
            terminal.settle("\n>\n")
        terminal.send(UNSENT)
        terminal.settle(UNSENT)
        shown = _as_text(terminal.screen)
        terminal.close()
    return shown


def _as_text(screen: Any) -> Text:
    """The screen with its colours, up to its last line that is not blank."""
    text = Text()
    rows = [screen.buffer[number] for number in range(screen.lines)]
    while rows and not "".join(rows[-1][column].data for column in range(screen.columns)).strip():
        rows.pop()
    for number, row in enumerate(rows):
        cursor = screen.cursor.x if number == screen.cursor.y else None
        cells = [(row[at].data, _style(row[at], at == cursor)) for at in range(screen.columns)]
        while cells and cells[-1][0] == " " and not cells[-1][1].reverse:
            cells.pop()
        for style, group in groupby(cells, key=itemgetter(1)):
            text.append("".join(char for char, _ in group), style)
        text.append("\n")
    return text


def _style(char: Any, is_cursor: bool) -> Style:
    names = [COLOURS.get(name, name.replace("bright", "bright_")) for name in (char.fg, char.bg)]
    colour, ground = (f"#{name}" if re.fullmatch(r"[\da-f]{6}", name) else name for name in names)
    return Style(
        color=colour, bgcolor=ground, bold=char.bold, italic=char.italics, reverse=char.reverse or is_cursor
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--light", type=Path)
    options = parser.parse_args()
    picture = Console(record=True, width=WIDTH, file=io.StringIO())
    picture.print(chat({"COLORFGBG": "0;15"} if options.light else {}))
    theme = DEFAULT_TERMINAL_THEME if options.light else SVG_EXPORT_THEME
    svg = picture.export_svg(title="mlx-qwen3 chat", theme=theme)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # nothing is fetched to show it
    (options.light or ROOT / "docs" / "chat.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
