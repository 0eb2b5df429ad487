"""The part of the terminal that is redrawn when it changes, below the scrollback.

Each change is one write, and every line is written over the old one. No line is blank in between, so
nothing flickers. The redrawn lines are written with the terminal's automatic wrapping off: terminals
differ in how wide some characters are, and a line that wrapped would leave a copy of itself behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlx_qwen3.cli.output import write_codes

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

# Synchronized output (mode 2026): terminals that know it show a change all at once.
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
WRAP_OFF, WRAP_ON = "\x1b[?7l", "\x1b[?7h"
CLEAR_LINE, CLEAR_BELOW = "\x1b[K", "\x1b[J"


def reflows() -> bool:
    """Whether the terminal wraps its lines anew when it becomes narrower, as all but a few old ones do."""
    name = os.environ.get("TERM", "")
    is_old = name.startswith(("linux", "rxvt", "screen")) and "TMUX" not in os.environ
    return not is_old and "XTERM_VERSION" not in os.environ


def wrapped_rows(widths: Iterable[int], columns: int) -> int:
    """Rows that lines of these widths take in so many columns."""
    return sum(max(-(-width // columns), 1) for width in widths)


class LiveRegion:
    """`draw` replaces the content drawn before; `print` adds to the scrollback above it."""

    def __init__(self, console: Console):
        self._console = console
        self._lines: list[str] = []
        self._width = 0

    def draw(self, content: RenderableType | None, above: RenderableType | None = None) -> bool:
        """Print `above` into the scrollback and show `content` below it. False if nothing changed."""
        printed = self._render(above)
        lines = self._render(content)[-max(self._console.height - 1, 1) :]
        if not printed and lines == self._lines and self._console.width == self._width:
            return False
        # The scrollback wraps: what a terminal finds too wide must not be cut off there.
        above_lines = [CLEAR_BELOW, *(line + "\n" for line in printed)] if printed else []
        # Cleared before it is written: after a line that fills the width, its last character would go.
        below_lines = [CLEAR_LINE + line + "\n" for line in lines]
        cursor = HIDE_CURSOR if lines else SHOW_CURSOR
        drawn = (*above_lines, WRAP_OFF, *below_lines, WRAP_ON)
        self._write(BEGIN, self._go_up(), *drawn, CLEAR_BELOW, cursor, END)
        self._lines, self._width = lines, self._console.width
        return True

    def print(self, content: RenderableType) -> None:
        """Print `content` into the scrollback and draw nothing below it."""
        self.draw(None, above=content)

    def clear(self) -> None:
        """Erase the drawn content."""
        if self._lines:
            self.draw(None)

    def forget(self) -> None:
        """Leave what is drawn where it is: others have written to the terminal since."""
        self._lines = []

    def _render(self, content: RenderableType | None) -> list[str]:
        if content is None:
            return []
        with self._console.capture() as captured:
            self._console.print(content)
        return captured.get().removesuffix("\n").split("\n")

    def _go_up(self) -> str:
        """The escape code to the first drawn line. A narrower terminal has wrapped lines that were longer."""
        count = len(self._lines)
        if self._lines and self._console.width < self._width and reflows():
            from rich.text import Text

            widths = [Text.from_ansi(line).cell_len for line in self._lines]
            count = wrapped_rows(widths, self._console.width)
        return f"\r\x1b[{count}A" if count else "\r"

    def _write(self, *parts: str) -> None:
        write_codes("".join(parts), self._console.file)
