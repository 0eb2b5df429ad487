"""Asks at the terminal whether a tool may be called."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from prompt_toolkit import prompt

from mlx_qwen3.cli.chat.terminal.keys import KeyWatcher
from mlx_qwen3.tools.approval import Answer, Choice, Question, describe, visible

if TYPE_CHECKING:
    from rich.console import Console

    from mlx_qwen3.cli.chat.terminal.text import Printer

KEYS = {
    "y": (Choice.ONCE, "yes, once"),
    "t": (Choice.TOOL, "always this tool"),
    "s": (Choice.SERVER, "always this server"),
    "n": (Choice.DENY, "no (n REASON tells the model why)"),
}


class PermissionPrompt:
    """Shows a tool call and asks the user. A new or changed tool is first shown in full.

    cancel: stops the turn; called for Ctrl-C at the question.
    """

    def __init__(self, console: Console, printer: Printer, keys: KeyWatcher, cancel: Callable[[], object]):
        self._console = console
        self._printer = printer
        self._keys = keys
        self._cancel = cancel

    def __call__(self, question: Question) -> Answer:
        self._printer.pause()
        if question.has_changed:
            self._print("This tool is not what it was when you last saw it:", "bold red")
        if question.is_new or question.has_changed:
            self._print(describe(question.tool), "dim")
        arguments = visible(json.dumps(question.arguments, ensure_ascii=False))
        self._print(f"Allow {question.tool.key} {arguments}?", "bold")
        labels = {key: label for key, (choice, label) in KEYS.items() if choice in question.choices}
        self._print("  ".join(f"{key}: {label}" for key, label in labels.items()), "dim")
        with self._keys.paused():
            return self._ask(labels)

    def _ask(self, labels: dict[str, str]) -> Answer:
        while True:
            try:
                # On a thread, because the event loop of the tools runs on this one.
                text = prompt("[y/n] ", in_thread=True).strip()
            except EOFError:
                return Answer(Choice.DENY)
            except KeyboardInterrupt:
                self._cancel()
                return Answer(Choice.DENY)
            key, _, reason = text.partition(" ")
            if key.lower() in labels:
                return Answer(KEYS[key.lower()][0], reason)

    def _print(self, text: str, style: str) -> None:
        self._console.print(text, style=style, markup=False, highlight=False)
