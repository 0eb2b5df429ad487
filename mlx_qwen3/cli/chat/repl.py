"""The chat's read-eval-print loop: reads a line, runs the command or the turn, and repeats."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlx_qwen3.cli.chat.commands.conversation import show_latest_turn
from mlx_qwen3.cli.chat.commands.registry import COMMANDS, choices, is_command, run_command
from mlx_qwen3.cli.chat.saved_conversations import ConversationStore
from mlx_qwen3.cli.chat.state import ChatState
from mlx_qwen3.cli.chat.terminal.ask_permission import PermissionPrompt
from mlx_qwen3.cli.chat.terminal.keys import KeyWatcher
from mlx_qwen3.cli.chat.terminal.line_editor import ChatCompleter, LineEditor
from mlx_qwen3.cli.chat.terminal.markdown import console_theme
from mlx_qwen3.cli.chat.terminal.printers import make_terminal_printer
from mlx_qwen3.cli.chat.terminal.tty import cancel_on_interrupt
from mlx_qwen3.cli.chat.toolbar import toolbar
from mlx_qwen3.cli.console import SafeConsole
from mlx_qwen3.cli.errors import chat_error_line
from mlx_qwen3.cli.output import error_text
from mlx_qwen3.errors import DistributedError, MessageError, Qwen3Error

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
# The first prompt waits at most so long for MCP servers, which started while the model was loading.
SERVER_WAIT_SECONDS = 5.0


class ChatREPL:
    """One chat at the terminal.

    /model replaces `state.engine`, so the engine to close at the end may not be the one passed here.
    store: where the conversation is saved.
    saved_as: the name of the saved conversation that this chat continues.
    """

    def __init__(
        self,
        engine: Engine,
        session: Session,
        name: str,
        tools: ChatTools,
        store: ConversationStore,
        saved_as: str = "",
    ):
        console = SafeConsole(theme=console_theme())
        self.state = state = ChatState(
            engine=engine,
            session=session,
            model=name,
            console=console,
            printer=make_terminal_printer(console),
            store=store,
            tools=tools,
            show_turn=self._show_turn,
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
        tools.approvals.ask = PermissionPrompt(
            console, state.printer, self._keys, lambda: state.session.cancel()
        )

    def run(self) -> None:
        """Chat until the user leaves with Ctrl-D, /exit, or Ctrl-C twice."""
        self._greet()
        pressed_at = 0.0
        while not self.state.is_over:
            self._print_server_notices()
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
                self.state.print_line("Ctrl-C again or Ctrl-D leaves")

    def _read(self) -> str:
        self.state.prefill_ahead()
        return self._editor.read(self.state.take_draft(), self.state.is_editing)

    def _handle(self, text: str) -> None:
        state = self.state
        try:
            if is_command(text):
                state.is_editing = False
                run_command(state, text)
            elif text.strip():
                self._send(text)
        except DistributedError:
            raise  # nothing can run any more
        except Qwen3Error as error:
            state.console.print(f"error: {error_text(chat_error_line(error))}", style="red")
        if text.strip():
            state.console.print()

    def _send(self, text: str) -> None:
        """Send `text` after the attachments. If the turn was not recorded, keep both for the next prompt."""
        state, session = self.state, self.state.session
        before, is_editing = session.messages, state.is_editing
        state.is_editing = False
        message = "\n\n".join([*state.attachments, text])
        self._show_turn(session.edit(message) if is_editing else session.send(message))
        if session.messages is before:
            state.draft = text
        else:
            state.attachments.clear()

    def _show_turn(self, events: Iterator[Event]) -> None:
        """Print a turn as it runs. Ctrl-C stops it; the text so far is kept."""
        state = self.state
        self._is_stopped = self._editor.is_interrupted
        with cancel_on_interrupt(self._stop), self._keys, state.printer:
            for event in events:
                state.printer.show(event)
                if self._is_stopped:  # pressed before the turn could be cancelled
                    state.session.cancel()
        self._save()

    def _print_server_notices(self) -> None:
        for line in self.state.tools.take_notices():
            self.state.print_line(line)

    def _stop(self) -> None:
        self._is_stopped = True
        self.state.session.cancel()

    def _save(self) -> None:
        """Save the conversation after each turn, so that a killed chat can be resumed."""
        if self.state.session.messages:
            try:
                self.state.save()
            except MessageError as error:
                self.state.print_line(f"not saved: {error}")

    def _greet(self) -> None:
        state = self.state
        size = state.engine.model.args.num_parameters
        parameters = f"{size / 1e9:.1f}B" if size >= 1e9 else f"{size / 1e6:.1f}M"
        title = f"{state.model} · {parameters} parameters · {state.context_label}"
        state.console.print(title, style="bold")
        if state.model == "demo":
            state.print_line(DEMO_NOTE)
        for status in state.tools.wait_for_servers(SERVER_WAIT_SECONDS):
            detail = f": {status.problem}" if status.problem else f", {status.tools} tools"
            state.print_line(f"MCP server {status.name}: {status.state}{detail}")
        for line in state.tools.unknown_allowed_tools():
            state.print_line(line)
        if chosen := state.session.sampling_values:
            state.print_line("sampling: " + ", ".join(f"{name} {value}" for name, value in chosen.items()))
        if state.name:
            state.load_cache()
            show_latest_turn(state)
        state.print_line("/help for help\n")
