"""Asks at the terminal whether a tool may be called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from rich.text import Text

from mlx_qwen3.cli.chat.terminal.type_ahead import TypeAhead
from mlx_qwen3.tools.approval import Answer, Choice, Question
from mlx_qwen3.tools.approval_text import MARGIN, describe, json_text, key_text

if TYPE_CHECKING:
    from rich.console import Console

    from mlx_qwen3.cli.chat.terminal.text import Printer

KEYS = {
    "y": (Choice.ONCE, "yes, once"),
    "t": (Choice.TOOL, "always this tool"),
    "s": (Choice.SERVER, "always this server"),
    "n": (Choice.DENY, "no (n REASON tells the model why)"),
}
WORDS = {"yes": "y", "no": "n"}
MIN_WIDTH = 20


class PermissionPrompt:
    """Shows a tool call and asks the user. A new or changed tool is first shown in full.

    Only keys that are pressed once the whole question is on the screen answer it. A line that holds text of
    a server or of the model begins with a word of ours or with MARGIN, also where it is wrapped.

    cancel: stops the turn; called for Ctrl-C at the question.
    """

    def __init__(self, console: Console, printer: Printer, keys: TypeAhead, cancel: Callable[[], object]):
        self._console = console
        self._printer = printer
        self._keys = keys
        self._cancel = cancel

    def __call__(self, question: Question) -> Answer:
        self._printer.pause()
        tool, width = question.tool, self._console.width
        if question.has_changed:
            self._print("This tool is not what it was when you last saw it:", "bold red")
        if question.is_new or question.has_changed:
            self._print(describe(tool), "dim")
        arguments, key = json_text(question.arguments), key_text(tool.key)
        call = f"Allow {key} {arguments}?"
        if max_cells(call) >= width:
            self._print(f"Arguments of the call:\n{MARGIN}{arguments}", "bold")
            call = f"Allow {key} with these arguments?"
        self._print(call, "bold")
        labels = {key: label for key, (choice, label) in KEYS.items() if choice in question.choices}
        if "s" in labels and question.server_tools:
            names = ", ".join(key_text(item.name) for item in question.server_tools)
            self._print(f"Tools of this server now: {names}", "dim")
        self._print("  ".join(f"{key}: {label}" for key, label in labels.items()), "dim")
        with self._keys.paused() as early:
            return self._ask(labels, early)

    def _ask(self, labels: dict[str, str], early: list[KeyPress]) -> Answer:
        is_shown = False

        def set_early_keys_aside(app: Application[str]) -> None:
            """Called when the prompt has been drawn: keys that wait to be read were pressed before that."""
            nonlocal is_shown
            pressed = [] if is_shown else app.input.read_keys()
            is_shown = True
            for key in pressed:
                if key.key is Keys.CPRResponse:  # the terminal's answer to a question of the toolkit
                    app.key_processor.feed(key)
                elif key.key is Keys.ControlC:
                    app.exit(exception=KeyboardInterrupt())
                else:
                    early.append(key)
            app.key_processor.process_keys()

        session: PromptSession[str] = PromptSession(key_bindings=_bindings())
        session.app.after_render += set_early_keys_aside
        while True:
            try:
                # On a thread, because the event loop of the tools runs on this one.
                text = session.prompt("[y/n] ", in_thread=True).strip()
            except EOFError:
                return Answer(Choice.DENY)
            except KeyboardInterrupt:
                self._cancel()
                return Answer(Choice.DENY)
            word, _, reason = text.partition(" ")
            key = WORDS.get(word.lower(), word.lower())
            if key in labels:
                return Answer(KEYS[key][0], reason)
            if key:
                self._print(f"answer with one of {', '.join(labels)}", "dim")

    def _print(self, text: str, style: str) -> None:
        """Print lines that are wrapped here: a terminal would start the rest of a line without a margin."""
        for line in text.split("\n"):
            for part in wrap(line, max(self._console.width, MIN_WIDTH)):
                self._console.print(Text(part), style=style, soft_wrap=True)


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("escape", eager=True)
    def deny(event: KeyPressEvent) -> None:
        event.app.exit(result="n")

    return bindings


def max_cells(text: str) -> int:
    """The most columns `text` can take; terminals differ in what is wide."""
    return sum(1 if char.isascii() else 2 for char in text)


def wrap(line: str, width: int) -> Iterator[str]:
    """`line` in parts that surely fit into `width` columns, all but the first after MARGIN.

    A part is broken before a space if one is near its end, so that none is lost there.
    """
    prefix = ""
    while max_cells(prefix + line) > width:
        end, cells = 0, len(prefix)
        while cells + max_cells(line[end]) <= width:
            cells += max_cells(line[end])
            end += 1
        space = line.rfind(" ", end * 2 // 3, end + 1)
        end = space if space > 0 else end
        yield prefix + line[:end]
        prefix, line = MARGIN, line[end:]
    yield prefix + line
