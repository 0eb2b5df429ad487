"""The part of the terminal that is drawn anew as it changes, below what stays.

Each change is one write, in which every line is written over the old one: nothing is blank in
between, so nothing flickers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

# Terminals that know mode 2026 show all of a change at once; the others ignore it.
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
CLEAR_LINE, CLEAR_BELOW = "\x1b[K", "\x1b[J"


class LiveRegion:
    """`draw` puts content where the last was; `print` puts some above it, for good."""

    def __init__(self, console: Console):
        self._console = console
        self._lines: list[str] = []
        self._width = 0

    def draw(self, content: RenderableType | None, above: RenderableType | None = None) -> bool:
        """Show `content`, after printing `above` into the scrollback; False if nothing changed."""
        printed = self._render(above)
        lines = self._render(content)[-max(self._console.height - 1, 1) :]
        if not printed and lines == self._lines and self._console.width == self._width:
            return False
        changed = [line + CLEAR_LINE + "\n" for line in [*printed, *lines]]
        cursor = HIDE_CURSOR if lines else SHOW_CURSOR
        self._write(BEGIN, self._go_up(), *changed, CLEAR_BELOW, cursor, END)
        self._lines, self._width = lines, self._console.width
        return True

    def print(self, content: RenderableType) -> None:
        """Print `content` for good; nothing is drawn below it any more."""
        self.draw(None, above=content)

    def clear(self) -> None:
        """Take away what is drawn."""
        if self._lines:
            self.draw(None)

    def _render(self, content: RenderableType | None) -> list[str]:
        if content is None:
            return []
        with self._console.capture() as captured:
            self._console.print(content)
        return captured.get().removesuffix("\n").split("\n")

    def _go_up(self) -> str:
        """To the first line drawn. A terminal made narrower has folded the lines that were longer."""
        count = len(self._lines)
        if self._lines and self._console.width < self._width:
            from rich.text import Text

            widths = [Text.from_ansi(line).cell_len for line in self._lines]
            count = sum(max(-(-width // self._console.width), 1) for width in widths)
        return f"\r\x1b[{count}A" if count else "\r"

    def _write(self, *parts: str) -> None:
        self._console.file.write("".join(parts))
        self._console.file.flush()
