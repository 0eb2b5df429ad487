"""How what was said looks on the terminal: messages, the thinking on demand, the input line below a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from mlx_qwen3.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from prompt_toolkit.document import Document
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

BAR = "▌ "
BAR_STYLE = Style(color="cyan")
MAX_INPUT_LINES = 3  # of the line below a turn; its cursor is always among them
MAX_QUEUED_SHOWN = 2


class ThoughtsPanel:
    """The latest thinking, above the input line while the user wants to see it.

    It is drawn with the line and gone with it, so nothing of it stays in the scrollback.
    """

    def __init__(self, console: Console, thoughts: Callable[[], str]):
        """thoughts: returns the latest thinking."""
        self._console, self._thoughts = console, thoughts
        self._is_open = False
        self._top = 0
        self._wrapped: tuple[str, int, list[str]] = ("", 0, [])

    def toggle(self) -> None:
        """Show the thinking from its start, or hide it."""
        self._is_open, self._top = not self._is_open, 0

    def close(self) -> None:
        """Hide the thinking."""
        self._is_open = False

    @property
    def is_open(self) -> bool:
        return self._is_open

    def turn_page(self, pages: int) -> None:
        """Show what is so many pages below, or above if it is negative."""
        last = max(len(self._wrap()) - self._height, 0)
        self._top = min(max(self._top + pages * self._height, 0), last)

    def lines(self) -> list[str]:
        """What to draw: a heading, and the lines of the thinking that have room in half of the screen."""
        if not self._is_open:
            return []
        lines, height = self._wrap(), self._height
        shown = lines[self._top : self._top + height]
        place = f" · lines {self._top + 1} to {self._top + len(shown)} of {len(lines)} · Page Down, Page Up"
        heading = f"∴ thinking · Ctrl-O hides it{place if shown != lines else ''}"
        return [heading[: self._console.width], *shown]

    @property
    def _height(self) -> int:
        return max(self._console.height // 2 - 1, 1)

    def _wrap(self) -> list[str]:
        text, width = self._thoughts().strip() or "there was no thinking yet", self._console.width
        if self._wrapped[:2] != (text, width):
            lines = Text(text).wrap(self._console, width)
            self._wrapped = (text, width, [line.plain.rstrip() for line in lines])
        return self._wrapped[2]


class Barred:
    """`content` behind a coloured bar, which every one of its lines begins with."""

    def __init__(self, content: RenderableType, bar: str = BAR, style: Style = BAR_STYLE):
        self._content, self._bar, self._style = content, bar, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(options.max_width - cell_len(self._bar), 1)
        for line in console.render_lines(self._content, options.update(width=width, height=None), pad=False):
            yield Segment(self._bar, self._style)
            yield from line
            yield Segment.line()


def user_message(text: str) -> RenderableType:
    """A message of the user."""
    return Barred(Text(printable(text).strip("\n"), style="bold"))


def input_line(document: Document, queued: list[str], hint: str) -> Text:
    """The input line below a running turn, with the messages that wait above it.

    hint: shown while the line is empty.
    """
    shown = Text()
    for text in queued[:MAX_QUEUED_SHOWN]:
        first, *rest = printable(text).strip().split("\n")
        more = f" (+{len(rest)} lines)" if rest else ""
        shown.append(f"{BAR}{first[:60]}{more} · is sent next\n", style="dim")
    if len(queued) > MAX_QUEUED_SHOWN:
        shown.append(f"{BAR}{len(queued) - MAX_QUEUED_SHOWN} more\n", style="dim")
    shown.append("> ", style="bold cyan")
    if not document.text:
        shown.append(" ", style="reverse")
        shown.append(hint, style="bright_black")
        return shown
    lines = document.lines
    last = max(document.cursor_position_row + 1, min(MAX_INPUT_LINES, len(lines)))
    visible = range(max(last - MAX_INPUT_LINES, 0), last)
    for row in visible:
        line = lines[row]
        if row != visible[0]:
            shown.append("\n  ")
        if row != document.cursor_position_row:
            shown.append(printable(line))
            continue
        column = document.cursor_position_col
        shown.append(printable(line[:column]))
        shown.append(printable(line[column : column + 1]) or " ", style="reverse")
        shown.append(printable(line[column + 1 :]))
    return shown
