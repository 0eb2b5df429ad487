"""A turn on a capable terminal: Markdown as it streams, thinking in a small window that folds away.

Finished blocks are printed once, into the scrollback; only what may still change is drawn live, at
most 20 times a second, and never taller than the screen.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from mlx_qwen3.cli.chat.markdown import BlockStream, render_markdown
from mlx_qwen3.cli.chat.render import LONG_PROMPT, grown_note, printable, turn_figures
from mlx_qwen3.events import (
    AnswerDelta,
    ContextGrown,
    Done,
    Event,
    PromptProgress,
    ThinkingDelta,
    ToolCall,
    ToolCallStart,
    ToolResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS_BETWEEN_DRAWINGS = 0.05
THINKING_LINES = 8


class Tail:
    """The last `height` lines of what is drawn."""

    def __init__(self, content: RenderableType, height: int):
        self._content = content
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._content, options.update(height=None), pad=False)
        for line in lines[-self._height :]:
            yield from line
            yield Segment.line()


class LivePrinter:
    """Shows the events of one turn after the other; remembers the latest thinking."""

    def __init__(self, console: Console):
        self.finish_reason: str | None = None
        self.thoughts = ""
        self._console = console
        self._live: Live | None = None
        self._drawn_at = 0.0
        self._start_turn()

    def show(self, event: Event) -> None:
        match event:
            case PromptProgress():
                self._show_progress(event)
            case ContextGrown():
                self._console.print(grown_note(event), style="dim", markup=False, highlight=False)
            case ThinkingDelta():
                self._think(event.text)
            case AnswerDelta():
                self._answer(event.text)
            case ToolCallStart():
                self._finish_part()
            case ToolCall():
                self._show_call(event)
            case ToolResult():
                self._show_result(event)
            case Done():
                self._end(event)

    def stop(self) -> None:
        """Leave the terminal as it should be, whatever happened."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _start_turn(self) -> None:
        self._blocks = BlockStream()
        self._has_printed = False
        self._thinking_since: float | None = None

    def _think(self, text: str) -> None:
        if self._thinking_since is None:
            self._finish_part()
            self._thinking_since, self.thoughts = time.monotonic(), ""
        self.thoughts += printable(text)
        self._draw(self._thinking_window)

    def _thinking_window(self) -> RenderableType:
        seconds = time.monotonic() - (self._thinking_since or 0.0)
        head = Text(f"∴ thinking {seconds:.0f} s", style="dim")
        height = min(THINKING_LINES, max(self._console.height // 2, 1))
        return Group(head, Tail(Text(self.thoughts.strip(), style="dim italic"), height))

    def _answer(self, text: str) -> None:
        if self._thinking_since is not None:
            self._finish_part()
        for block in self._blocks.push(printable(text)):
            self._print_block(block)
        self._draw(lambda: Tail(render_markdown(self._blocks.tail), max(self._console.height - 2, 1)))

    def _print_block(self, block: str) -> None:
        if self._live is not None:
            self._live.update(Text(""))  # or the block would be seen twice for a moment
        self._print(render_markdown(block))

    def _print(self, content: RenderableType) -> None:
        """Print into the scrollback, a blank line after what came before in this turn."""
        if self._has_printed:
            self._console.print()
        self._console.print(content)
        self._has_printed = True

    def _finish_part(self) -> None:
        """Fold the thinking, or print the rest of the answer."""
        self.stop()
        if self._thinking_since is not None:
            seconds, self._thinking_since = time.monotonic() - self._thinking_since, None
            self._print(Text(f"∴ thought for {seconds:.1f} s (/thoughts shows it)", style="dim"))
        for block in self._blocks.finish():
            self._print(render_markdown(block))

    def _show_call(self, call: ToolCall) -> None:
        self._finish_part()
        arguments = call.raw if call.arguments is None else json.dumps(call.arguments, ensure_ascii=False)
        self._print(Text(printable(f"→ {call.name} {arguments}"), style="cyan"))

    def _show_result(self, result: ToolResult) -> None:
        first, *rest = printable(result.text).strip().split("\n") or [""]
        more = f" (+{len(rest)} lines)" if rest else ""
        style = "red" if result.is_error else "dim cyan"
        self._console.print(Text(f"← {first[:200]}{more} · {result.seconds:.1f} s", style=style))

    def _show_progress(self, event: PromptProgress) -> None:
        if event.total >= LONG_PROMPT:
            text = f"reading {event.processed:,} of {event.total:,} tokens"
            self._draw(lambda: Text(text, style="dim"))

    def _end(self, event: Done) -> None:
        self._finish_part()
        self.finish_reason = event.finish_reason
        self._console.print(Text(" · ".join(turn_figures(event)), style="dim"))
        self._start_turn()

    def _draw(self, content: Callable[[], RenderableType]) -> None:
        """Draw the live part anew, unless that was done a moment ago."""
        if time.monotonic() - self._drawn_at < SECONDS_BETWEEN_DRAWINGS:
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(content(), refresh=True)
        self._drawn_at = time.monotonic()
