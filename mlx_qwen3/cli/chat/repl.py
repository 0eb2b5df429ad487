"""Chatting at a terminal: read a line, run the command or the turn, again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console

from mlx_qwen3.cli.chat.commands.conversation import show_where_we_were
from mlx_qwen3.cli.chat.commands.registry import COMMANDS, choices, is_command, run_command
from mlx_qwen3.cli.chat.interrupt import cancel_on_interrupt
from mlx_qwen3.cli.chat.saved_conversations import Store
from mlx_qwen3.cli.chat.state import ChatState
from mlx_qwen3.cli.chat.terminal.ask_permission import Approver
from mlx_qwen3.cli.chat.terminal.keys import KeyWatcher
from mlx_qwen3.cli.chat.terminal.line_editor import ChatCompleter, LineEditor
from mlx_qwen3.cli.chat.terminal.markdown import console_theme
from mlx_qwen3.cli.chat.terminal.printers import make_terminal_printer, printable
from mlx_qwen3.cli.chat.toolbar import toolbar
from mlx_qwen3.cli.errors import chat_error_line
from mlx_qwen3.errors import MessageError, Qwen3Error

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.tools import ChatTools
    from mlx_qwen3.engine import Engine
    from mlx_qwen3.engine.session import Session
    from mlx_qwen3.events import Event

DEMO_NOTE = (
    "This is the built-in demo, a tiny Qwen3 trained to do sums and to answer questions about this "
    "program. For the real thing: mlx-qwen3 chat --model 14b (8.3 GB)"
)
DOUBLE_PRESS_SECONDS = 2.0
SERVER_SECONDS = 5.0  # that the first prompt waits for MCP servers; they have had the model's loading time


class ChatLoop:
    """One chat at the terminal. `state.engine` may be another than `engine` in the end, by /model.

    saved_as: the name of the saved conversation that this one goes on with.
    """

    def __init__(self, engine: Engine, session: Session, name: str, tools: ChatTools, saved_as: str = ""):
        console = Console(highlight=False, theme=console_theme())
        self.state = state = ChatState(
            engine=engine,
            session=session,
            model=name,
            console=console,
            printer=make_terminal_printer(console),
            store=Store(),
            tools=tools,
            play=self._play,
            name=saved_as,
        )
        summaries = {name: function.__doc__ or "" for name, function in COMMANDS.items()}
        self._editor = LineEditor(
            ChatCompleter(summaries, choices(state)),
            lambda: toolbar(state, shutil.get_terminal_size().columns),
            lambda: run_command(state, "/thoughts"),
        )
        keys = {"c-o": lambda: state.printer.toggle_thoughts(), "escape": self._stop, "c-c": self._stop}
        self._is_stopped = False
        self._keys = KeyWatcher(self._editor.input, self._editor.output, keys)
        tools.approvals.ask = Approver(console, state.printer, self._keys, lambda: state.session.cancel())
        tools.approvals.tell = state.say

    def run(self) -> None:
        """Chat until the user leaves with Ctrl-D, /exit, or Ctrl-C twice."""
        self._greet()
        pressed_at = 0.0
        while not self.state.is_over:
            self._tell_of_servers()
            try:
                self._handle(self._read())
            except EOFError:
                return
            except KeyboardInterrupt:
                if self.state.is_editing:
                    self.state.is_editing = False
                    continue
                if time.monotonic() - pressed_at < DOUBLE_PRESS_SECONDS:
                    return
                pressed_at = time.monotonic()
                self.state.say("Ctrl-C again or Ctrl-D leaves")

    def _read(self) -> str:
        self.state.prepare()
        return self._editor.read(self.state.take_draft(), self.state.is_editing)

    def _handle(self, text: str) -> None:
        state = self.state
        try:
            if is_command(text):
                state.is_editing = False
                run_command(state, text)
            elif text.strip():
                self._send(text)
        except Qwen3Error as error:
            state.console.print(f"error: {chat_error_line(error)}", style="red", markup=False)
        if text.strip():
            state.console.print()

    def _send(self, text: str) -> None:
        """Say `text`, after the files attached; they are kept, and so is `text`, where nothing came of it."""
        state, session = self.state, self.state.session
        before, is_editing = session.messages, state.is_editing
        state.is_editing = False
        message = "\n\n".join([*state.attachments, text])
        self._play(session.edit(message) if is_editing else session.send(message))
        if session.messages is before:
            state.draft = text
        else:
            state.attachments.clear()

    def _play(self, events: Iterator[Event]) -> None:
        """Show a turn; Ctrl-C stops it and keeps the text so far."""
        state = self.state
        self._is_stopped = self._editor.is_interrupted
        with cancel_on_interrupt(self._stop), self._keys, state.printer:
            for event in events:
                state.printer.show(event)
                if self._is_stopped:  # perhaps before there was a turn to cancel
                    state.session.cancel()
        self._keep()

    def _tell_of_servers(self) -> None:
        for line in self.state.tools.notices():
            self.state.say(printable(line))

    def _stop(self) -> None:
        self._is_stopped = True
        self.state.session.cancel()

    def _keep(self) -> None:
        """Save the conversation, so that a killed chat can be resumed after its last turn."""
        if self.state.session.messages:
            try:
                self.state.save()
            except MessageError as error:
                self.state.say(f"not saved: {error}")

    def _greet(self) -> None:
        state = self.state
        size = state.engine.model.args.num_parameters
        shown = f"{size / 1e9:.1f}B" if size >= 1e9 else f"{size / 1e6:.1f}M"
        title = f"{state.model} · {shown} parameters · {state.room_shown}"
        state.console.print(title, style="bold", markup=False)
        if state.model == "demo":
            state.say(DEMO_NOTE)
        for status in state.tools.wait(SERVER_SECONDS):
            problem = f": {status.problem}" if status.problem else f", {status.tools} tools"
            state.say(f"MCP server {status.name}: {status.state}{problem}")
        for line in state.tools.problems_of_allow():
            state.say(printable(line))
        if chosen := state.session.sampling_values:
            state.say("sampling: " + ", ".join(f"{name} {value}" for name, value in chosen.items()))
        if state.name:
            state.resume()
            show_where_we_were(state)
        state.say("/help for help\n")
