"""A turn on a capable terminal: Markdown as it streams, thinking in a small window that folds away.

Finished blocks are printed once, into the scrollback. Only text that may still change is drawn live.
Events change the state; a painter thread draws it up to 20 times a second, if it changed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

from mlx_qwen3.cli.chat.terminal.markdown import BlockStream, render_markdown
from mlx_qwen3.cli.chat.terminal.region import LiveRegion
from mlx_qwen3.cli.chat.terminal.text import context_grown_note, memory_low_note, turn_note
from mlx_qwen3.cli.chat.terminal.waiting import WaitIndicator
from mlx_qwen3.cli.output import printable
from mlx_qwen3.events import (
    AnswerDelta,
    ContextGrown,
    Done,
    Event,
    MemoryLow,
    PromptProgress,
    ThinkingDelta,
    ThinkingDone,
    ToolCall,
    ToolCallStart,
    ToolResult,
)

if TYPE_CHECKING:
    from types import TracebackType

DRAW_INTERVAL = 0.05  # seconds
# The largest share of the time spent drawing. Slow content (a long code block) is drawn less often.
MAX_DRAW_SHARE = 0.2
THINKING_LINES = 8
FOOTER_LINES = 4  # the input line, its status line and blank lines
# Only the last characters of the thinking are laid out for its window; more never fit.
THINKING_CHARACTERS = 4000


class Tail:
    """The last `height` lines of a rendered `content`."""

    def __init__(self, content: RenderableType, height: int):
        self._content = content
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._content, options.update(height=None), pad=False)
        for line in lines[-self._height :]:
            yield from line
            yield Segment.line()


class LivePrinter:
    """Shows the events of one turn after the other, and keeps the latest thinking.

    Use it in a `with` block while a turn runs. is_unfolded: thinking stays on the screen.
    """

    def __init__(
        self,
        console: Console,
        with_figures: bool = False,
        footer: Callable[[], RenderableType | None] | None = None,
    ):
        """with_figures: show the figures of a turn after it. footer: what is drawn below a running turn."""
        self._with_figures = with_figures
        self._footer = footer or _nothing
        self.finish_reason: str | None = None
        self.thoughts = ""
        self.is_unfolded = False
        self._has_hinted = False
        self._console = console
        self._region = LiveRegion(console)
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._painter: threading.Thread | None = None
        self._content: Callable[[], RenderableType | None] = _nothing
        self._start_turn()

    def show(self, event: Event) -> None:
        with self._lock:
            self._is_paused = False
            match event:
                case PromptProgress():
                    self._waiting.update(event)
                case MemoryLow():
                    self._add_block(Text(memory_low_note(event), style="dim"))
                case ContextGrown():
                    self._add_block(Text(context_grown_note(event), style="dim"))
                case ThinkingDelta():
                    self._add_thinking(event.text)
                case ThinkingDone():
                    self._end_thinking(event)
                case AnswerDelta():
                    self._add_answer(event.text)
                case ToolCallStart():
                    self._end_answer()
                case ToolCall():
                    self._show_call(event)
                case ToolResult():
                    self._show_result(event)
                case Done():
                    self._end_turn(event)

    def toggle_thoughts(self) -> bool:
        """Fold the current and later thinking, or leave it on the screen. Call it from any thread.

        Returns False, and does nothing, while the model does not think.
        """
        with self._lock:
            if self._is_thinking:
                self.is_unfolded = not self.is_unfolded
            return self._is_thinking

    def __enter__(self) -> LivePrinter:
        self._start_turn()
        self._is_over.clear()
        self._painter = threading.Thread(target=self._paint, name="mlx_qwen3 painter", daemon=True)
        self._painter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pause()
        if self._painter is not None:
            self._is_over.set()
            self._painter.join()
            self._painter = None

    def pause(self) -> None:
        """Stop drawing until the next event, so that other code can use the terminal."""
        with self._lock:
            self._content, self._is_paused = _nothing, True
            self._flush()
            self._region.clear()

    def _start_turn(self) -> None:
        self._blocks = BlockStream()
        self._finished: list[RenderableType] = []  # printed above the next drawing
        self._has_printed = False
        self._is_thinking = self._is_paused = False
        self._thinking_since = 0.0
        self._wait()

    def _paint(self) -> None:
        """Draw until the `with` block ends. Runs on the painter thread."""
        pause = DRAW_INTERVAL
        while not self._is_over.wait(pause):
            start = time.perf_counter()
            with self._lock:
                self._region.draw(self._with_footer(self._content()), above=self._take_finished())
            pause = max(DRAW_INTERVAL, (time.perf_counter() - start) / MAX_DRAW_SHARE)

    def suspend(self, stop: Callable[[], object]) -> None:
        """Call `stop`, which returns when the program goes on after Ctrl-Z; draw nothing meanwhile."""
        with self._lock:
            self._flush()
            self._region.clear()
            stop()
            self._region.forget()

    # Hold the lock to call the methods below.

    def _with_footer(self, content: RenderableType | None) -> RenderableType | None:
        footer = None if self._is_paused else self._footer()
        if footer is None:
            return content
        shown = [] if content is None else [content, Text()]
        return Group(*([Text()] if self._has_printed and content is None else []), *shown, footer)

    @property
    def _height(self) -> int:
        """Lines that a running turn may take, beside its footer: with it half of the screen.

        It then still fits into a window of half the width or height. The terminal moves what does not into
        the scrollback, where it cannot be erased.
        """
        return max(self._console.height // 2 - (FOOTER_LINES if self._footer is not _nothing else 1), 2)

    def _add_thinking(self, text: str) -> None:
        if not self._is_thinking:
            self._end_answer()
            self._is_thinking, self._thinking_since, self.thoughts = True, time.monotonic(), ""
            self._content = self._thinking_window
        self.thoughts += printable(text, is_piece=True)

    def _thinking_window(self) -> RenderableType:
        seconds = time.monotonic() - self._thinking_since
        head = Text(f"∴ thinking {seconds:.0f} s", style="dim")
        height = self._height - 1 if self.is_unfolded else min(THINKING_LINES, self._height - 1)
        latest = Text(self.thoughts[-THINKING_CHARACTERS:].strip(), style="dim italic")
        return Group(head, Tail(latest, max(height, 1)))

    def _end_thinking(self, event: ThinkingDone) -> None:
        """Replace the thinking by one line; when unfolded, print the thinking above that line."""
        line = f"∴ thought for {event.seconds:.1f} s, {event.tokens:,} tokens"
        if self.is_unfolded:
            self._add_block(Text(self.thoughts.strip(), style="dim italic"))
        elif self._footer is not _nothing and not self._has_hinted:  # or keys are not read
            self._has_hinted = True
            line += " · Ctrl-O shows them"
        self._is_thinking = False
        self._add_block(Text(line, style="dim"))
        self._wait()

    def _add_answer(self, text: str) -> None:
        for block in self._blocks.push(printable(text, is_piece=True)):
            self._add_block(render_markdown(block), block.continues)
        self._content = self._answer_tail

    def _answer_tail(self) -> RenderableType:
        block = self._blocks.tail
        tail = Tail(render_markdown(block), self._height - 1)
        return Group(Text(), tail) if self._has_printed and not block.continues else tail

    def _add_block(self, content: RenderableType, continues: bool = False) -> None:
        """Print `content` with the next drawing, after a blank line if the turn has printed before.

        continues: It goes on with what was printed before.
        """
        self._finished += [Text(), content] if self._has_printed and not continues else [content]
        self._has_printed = True

    def _take_finished(self) -> RenderableType | None:
        finished, self._finished = self._finished, []
        return Group(*finished) if finished else None

    def _flush(self) -> None:
        if finished := self._take_finished():
            self._region.print(finished)

    def _wait(self) -> None:
        self._waiting = WaitIndicator()
        self._content = self._waiting.render

    def _end_answer(self) -> None:
        """Print the unfinished rest of the answer, then show the wait indicator."""
        for block in self._blocks.finish():
            self._add_block(render_markdown(block), block.continues)
        self._wait()

    def _show_call(self, call: ToolCall) -> None:
        self._end_answer()
        arguments = call.raw if call.arguments is None else json.dumps(call.arguments, ensure_ascii=False)
        self._add_block(Text(printable(f"→ {call.name} {arguments}"), style="cyan"))

    def _show_result(self, result: ToolResult) -> None:
        first, *rest = printable(result.text).strip().split("\n") or [""]
        more = f" (+{len(rest)} lines)" if rest else ""
        style = "red" if result.is_error else "dim cyan"
        self._finished.append(Text(f"← {first[:200]}{more} · {result.seconds:.1f} s", style=style))
        self._wait()

    def _end_turn(self, event: Done) -> None:
        self._end_answer()
        self.finish_reason = event.finish_reason
        if note := turn_note(event, self._with_figures):
            self._add_block(Text(note, style="dim"))
        self._flush()
        self._start_turn()
        self._content = _nothing


def _nothing() -> None:
    """The content while nothing is drawn."""
