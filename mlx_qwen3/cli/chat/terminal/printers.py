"""Printers for the events of a turn: JSON lines for scripts, plain text for pipes, text for a terminal."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

from mlx_qwen3.cli.chat.terminal.text import (
    FINISH_NOTES,
    Printer,
    context_grown_note,
    memory_low_note,
    turn_note,
)
from mlx_qwen3.cli.output import printable, write, write_json, write_note
from mlx_qwen3.events import (
    AnswerDelta,
    ContextGrown,
    Done,
    Event,
    MemoryLow,
    ThinkingDelta,
    ToolCall,
    ToolResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console, RenderableType


def make_printer(as_json: bool, with_figures: bool = False) -> Printer:
    """The printer for standard output: JSON if asked for, plain text unless it is a terminal.

    with_figures: a terminal shows the figures of each turn after it.
    """
    if as_json:
        return JsonPrinter()
    if not sys.stdout.isatty():
        return AnswerPrinter()
    from mlx_qwen3.cli.chat.terminal.markdown import console_theme
    from mlx_qwen3.cli.console import SafeConsole

    return make_terminal_printer(SafeConsole(theme=console_theme()), with_figures)


def make_terminal_printer(
    console: Console,
    with_figures: bool = False,
    footer: Callable[[], RenderableType | None] | None = None,
) -> Printer:
    """A live printer if the terminal can move its cursor, else one that prints text as it arrives.

    footer: drawn below a running turn by a live printer.
    """
    if console.is_dumb_terminal:
        return TerminalPrinter(console, with_figures)
    from mlx_qwen3.cli.chat.terminal.live import LivePrinter

    return LivePrinter(console, with_figures, footer)


class _AppendOnlyPrinter:
    """Base of the printers that only append: they draw nothing that has to be erased."""

    finish_reason: str | None = None
    thoughts = ""

    def pause(self) -> None:
        """Nothing to erase."""

    def toggle_thoughts(self) -> bool:
        """Printed text cannot be folded."""
        return False

    def suspend(self, stop: Callable[[], object]) -> None:
        stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to clean up."""


class JsonPrinter(_AppendOnlyPrinter):
    """Every event as one JSON object a line: {"event": "AnswerDelta", "text": ...}."""

    def show(self, event: Event) -> None:
        if isinstance(event, Done):
            self.finish_reason = event.finish_reason
        write_json(json.dumps({"event": type(event).__name__, **asdict(event)}, ensure_ascii=False))


class AnswerPrinter(_AppendOnlyPrinter):
    """Only the answer on stdout; on stderr why it is incomplete, if it is."""

    def show(self, event: Event) -> None:
        if isinstance(event, AnswerDelta):
            write(event.text)
        elif isinstance(event, Done):
            self.finish_reason = event.finish_reason
            write("\n")
            if event.finish_reason in FINISH_NOTES:
                write_note(f"({FINISH_NOTES[event.finish_reason]})")


class TerminalPrinter(_AppendOnlyPrinter):
    """For terminals that cannot move their cursor: text as it arrives."""

    def __init__(self, console: Console, with_figures: bool):
        self._console = console
        self._with_figures = with_figures
        self._part: type[Event] | None = None  # the kind of event printed last in this turn

    def show(self, event: Event) -> None:
        match event:
            case MemoryLow():
                self._console.print(memory_low_note(event), style="dim")
            case ContextGrown():
                note = context_grown_note(event)
                self._console.print(note, style="dim")
            case ThinkingDelta():
                self.thoughts = ("" if self._part is None else self.thoughts) + printable(event.text)
                self._begin(ThinkingDelta)
                self._write(event.text, "dim italic")
            case AnswerDelta():
                self._begin(AnswerDelta)
                self._write(event.text)
            case ToolCall():
                self._begin(ToolCall)
                self._write(f"{event.name} {json.dumps(event.arguments, ensure_ascii=False)}", "cyan")
            case ToolResult():
                self._begin(ToolResult)
                self._write(event.text, "red" if event.is_error else "dim cyan")
            case Done():
                self._end(event)

    def _begin(self, part: type[Event]) -> None:
        """Put a blank line between thinking, answer and calls, and a heading before thinking."""
        if self._part is not None and (part is not self._part or part is ToolCall):
            self._console.print("\n")
        if part is ThinkingDelta and part is not self._part:  # a terminal without styles shows no other sign
            self._console.print("∴ thinking", style="dim")
        self._part = part

    def _write(self, text: str, style: str = "") -> None:
        # soft_wrap: the terminal wraps the lines, so copying an answer copies its lines unbroken.
        self._console.print(printable(text), style=style, end="", soft_wrap=True)

    def _end(self, event: Done) -> None:
        self.finish_reason = event.finish_reason
        self._console.print("\n" if self._part else "", end="")
        if note := turn_note(event, self._with_figures):
            self._console.print(note, style="dim")
        self._part = None
