"""Chatting at a terminal: read a line, run the command or the turn, again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mlx_qwen3.cli.chat.commands import ChatState, is_command, run_command
from mlx_qwen3.cli.chat.interrupt import cancel_on_interrupt
from mlx_qwen3.cli.chat.render import make_terminal_printer
from mlx_qwen3.errors import Qwen3Error

if TYPE_CHECKING:
    from mlx_qwen3.engine import Engine
    from mlx_qwen3.session import Session

DEMO_NOTE = (
    "This is the built-in demo, a tiny Qwen3 trained to do sums and to answer questions about this "
    "program. For the real thing: mlx-qwen3 chat --model 14b (8.3 GB)"
)
DOUBLE_PRESS_SECONDS = 2.0


class ChatLoop:
    """One chat at the terminal."""

    def __init__(self, engine: Engine, session: Session, name: str):
        self._console = Console(highlight=False)
        self._printer = make_terminal_printer(self._console)
        self._state = ChatState(session, self._console, lambda: self._printer.thoughts)
        self._prompt = _make_prompt()
        self._greet(engine, name)

    def run(self) -> None:
        """Chat until the user leaves with Ctrl-D, /exit, or Ctrl-C twice."""
        pressed_at = 0.0
        while not self._state.is_over:
            try:
                text = self._prompt.prompt("> ")
            except EOFError:
                return
            except KeyboardInterrupt:
                if time.monotonic() - pressed_at < DOUBLE_PRESS_SECONDS:
                    return
                pressed_at = time.monotonic()
                self._state.say("Ctrl-C again or Ctrl-D leaves")
                continue
            if text.strip():
                self._handle(text)

    def _handle(self, text: str) -> None:
        try:
            if is_command(text):
                run_command(self._state, text)
            else:
                self._answer(text)
        except Qwen3Error as error:
            self._console.print(f"error: {error}", style="red", markup=False)

    def _answer(self, text: str) -> None:
        session = self._state.session
        try:
            with cancel_on_interrupt(session):
                for event in session.send(text):
                    self._printer.show(event)
        finally:
            self._printer.stop()
        self._console.print()

    def _greet(self, engine: Engine, name: str) -> None:
        size = engine.model.args.num_parameters
        shown = f"{size / 1e9:.1f}B" if size >= 1e9 else f"{size / 1e6:.1f}M"
        self._console.print(f"{name} · {shown} parameters · context {engine.context:,}", style="bold")
        if name == "demo":
            self._console.print(DEMO_NOTE, style="dim")
        self._state.say("/help for help\n")


def _make_prompt() -> Any:
    """The line editor: several lines with Esc Enter, history across runs, reverse search."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.key_binding.key_processor import KeyPressEvent

    bindings = KeyBindings()

    @bindings.add("enter")
    def submit(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return PromptSession(history=FileHistory(str(_history_file())), key_bindings=bindings, multiline=True)


def _history_file() -> Path:
    """Where what was typed is kept, readable by its user alone."""
    from platformdirs import user_state_path

    path = user_state_path("mlx-qwen3", ensure_exists=True) / "history"
    path.touch(mode=0o600, exist_ok=True)
    return path
