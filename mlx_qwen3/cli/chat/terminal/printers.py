"""How a turn looks: on a terminal, as plain text for pipes, or as JSON lines for scripts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol, Self

from mlx_qwen3.events import (
    AnswerDelta,
    ContextGrown,
    Done,
    Event,
    ThinkingDelta,
    ToolCall,
    ToolResult,
)

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from mlx_qwen3.cli.chat.terminal.live import LivePrinter

# What a model may send to a terminal: text, newlines and tabs, but none of the control characters
# with which text could move the cursor, set the title or fake the chat's own lines.
CONTROL_CHARACTERS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})

ENDINGS = {
    "length": "stopped: out of tokens",
    "cancelled": "stopped",
    "loop": "stopped: the text went round in a loop",
}


class Printer(Protocol):
    """Shows the events of one turn after the other; a `with` block around a turn."""

    finish_reason: str | None
    thoughts: str
    """What was thought last."""

    def show(self, event: Event) -> None: ...

    def stop(self) -> None:
        """Leave the terminal to somebody else, until the next event."""
        ...

    def toggle_thoughts(self) -> None:
        """Fold the thinking, or leave it open."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def printable(text: str) -> str:
    """`text` without the characters that control a terminal."""
    return text.translate(CONTROL_CHARACTERS)


def make_printer(as_json: bool) -> Printer:
    """The printer that suits standard output: JSON if asked for, colours only on a terminal."""
    if as_json:
        return JsonPrinter()
    if not sys.stdout.isatty():
        return AnswerPrinter()
    from rich.console import Console

    from mlx_qwen3.cli.chat.terminal.markdown import console_theme

    return make_terminal_printer(Console(highlight=False, theme=console_theme()))


def make_terminal_printer(console: Console) -> TerminalPrinter | LivePrinter:
    """Live where the terminal can move its cursor; otherwise text as it comes."""
    if console.is_dumb_terminal:
        return TerminalPrinter(console)
    from mlx_qwen3.cli.chat.terminal.live import LivePrinter

    return LivePrinter(console)


class _PlainPrinter:
    """What the printers that only write share: nothing is drawn that would have to be taken back."""

    finish_reason: str | None = None
    thoughts = ""

    def stop(self) -> None:
        """There is nothing to take back."""

    def toggle_thoughts(self) -> None:
        """What is written stays."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left behind."""


class JsonPrinter(_PlainPrinter):
    """Every event as one JSON object a line: {"event": "AnswerDelta", "text": ...}."""

    def show(self, event: Event) -> None:
        if isinstance(event, Done):
            self.finish_reason = event.finish_reason
        line = json.dumps({"event": type(event).__name__, **asdict(event)}, ensure_ascii=False)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class AnswerPrinter(_PlainPrinter):
    """The answer and nothing else."""

    def show(self, event: Event) -> None:
        if isinstance(event, AnswerDelta):
            sys.stdout.write(event.text)
        elif isinstance(event, Done):
            self.finish_reason = event.finish_reason
            sys.stdout.write("\n")
            if event.finish_reason in ENDINGS:
                sys.stderr.write(f"({ENDINGS[event.finish_reason]})\n")
        sys.stdout.flush()


class TerminalPrinter(_PlainPrinter):
    """For terminals that cannot move their cursor: text as it comes, then a line of figures."""

    def __init__(self, console: Console):
        self._console = console
        self._part: type[Event] | None = None

    def show(self, event: Event) -> None:
        match event:
            case ContextGrown():
                self._console.print(grown_note(event), style="dim", markup=False, highlight=False)
            case ThinkingDelta():
                self.thoughts = event.text if self._part is None else self.thoughts + event.text
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
        """A blank line between thinking, answer and calls."""
        if self._part is not None and (part is not self._part or part is ToolCall):
            self._console.print("\n")
        self._part = part

    def _write(self, text: str, style: str = "") -> None:
        # soft_wrap: the terminal wraps, so that copying an answer copies its lines as they are.
        self._console.print(printable(text), style=style, end="", markup=False, soft_wrap=True)

    def _end(self, event: Done) -> None:
        self.finish_reason = event.finish_reason
        self._console.print("\n" if self._part else "", end="")
        self._console.print(" · ".join(turn_figures(event)), style="dim", markup=False, highlight=False)
        self._part = None


def grown_note(event: ContextGrown) -> str:
    """What a longer context means for the conversation."""
    scaled = f"positions are scaled by {event.factor:g} (YaRN), for up to {event.context:,} tokens"
    return f"the conversation outgrew its context: {scaled}; it is read once more"


def turn_figures(done: Done) -> list[str]:
    """Why a turn ended, if not by itself, and its figures worth a glance."""
    stats = done.stats
    figures = [ENDINGS[done.finish_reason]] if done.finish_reason in ENDINGS else []
    figures += [f"{stats.tokens_per_second:.1f} tokens/s", f"first {stats.ttft:.2f} s"]
    thought = f"{stats.thinking_tokens:,} thinking + " if stats.thinking_tokens else ""
    figures.append(f"{thought}{stats.answer_tokens:,} answer")
    figures.append(f"{stats.prompt_tokens:,} prompt, {stats.cached_tokens:,} cached")
    return figures
