"""The line editor: several lines, history across runs, completion, and a toolbar."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from mlx_qwen3.cli.chat.store import data_folder


class ChatCompleter(Completer):
    """Completes commands, and what /file, /load, /model and /set take."""

    def __init__(self, commands: Iterable[str], choices: dict[str, Callable[[], Iterable[str]]]):
        """choices: for a command, a function that lists what may follow it."""
        self._commands = sorted(commands)
        self._choices = choices
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text.partition(" ")
        if not space:
            yield from _matching(name, self._commands)
        elif name == "/file":
            yield from self._paths.get_completions(Document(argument), complete_event)
        elif name in self._choices:
            yield from _matching(argument, self._choices[name]())


def _matching(start: str, words: Iterable[str]) -> Iterable[Completion]:
    return (Completion(word, start_position=-len(start)) for word in words if word.startswith(start))


def make_prompt(completer: Completer, toolbar: Callable[[], str]) -> PromptSession[str]:
    """A line editor: Enter sends, Esc Enter or Alt-Enter starts a new line, Ctrl-R searches history."""
    return PromptSession(
        history=_history(),
        key_bindings=_bindings(),
        multiline=True,
        completer=completer,
        complete_while_typing=False,
        bottom_toolbar=toolbar,
        enable_open_in_editor=True,
    )


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def _history() -> FileHistory:
    """What was typed, kept for its user alone."""
    folder = data_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path: Any = folder / "history"
    path.touch(mode=0o600, exist_ok=True)
    return FileHistory(str(path))
