"""The chat's read-eval-print loop: reads a line, runs the command or the turn, and repeats."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from mlx_qwen3.cli.chat.commands.conversation import show_latest_turn
from mlx_qwen3.cli.chat.commands.registry import COMMANDS, choices, is_command, run_command
from mlx_qwen3.cli.chat.saved_conversations import ConversationStore
from mlx_qwen3.cli.chat.state import ChatState
from mlx_qwen3.cli.chat.terminal.ask_permission import PermissionPrompt
from mlx_qwen3.cli.chat.terminal.line_editor import ChatCompleter, LineEditor
from mlx_qwen3.cli.chat.terminal.markdown import console_theme
from mlx_qwen3.cli.chat.terminal.pasted import without_quotes
from mlx_qwen3.cli.chat.terminal.printers import make_terminal_printer
from mlx_qwen3.cli.chat.terminal.tty import cancel_on_interrupt, ended_by_signals
from mlx_qwen3.cli.chat.terminal.turns import ThoughtsPanel, input_line, user_message
from mlx_qwen3.cli.chat.terminal.type_ahead import TypeAhead
from mlx_qwen3.cli.chat.toolbar import toolbar
from mlx_qwen3.cli.console import SafeConsole
from mlx_qwen3.cli.errors import chat_error_line
from mlx_qwen3.cli.output import printable, program
from mlx_qwen3.errors import DistributedError, MessageError, Qwen3Error

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mlx_qwen3.cli.chat.tools import ChatTools
    from mlx_qwen3.engine import Engine
    from mlx_qwen3.engine.session import Session
    from mlx_qwen3.events import Event

DEMO_NOTE = (
    "This is the built-in demo, a tiny Qwen3 trained to do sums and to answer questions about this "
    "program. For the real thing: {program} chat --model 14b (8.3 GB)"
)
DOUBLE_PRESS_SECONDS = 2.0
# The first prompt waits at most so long for MCP servers, which started while the model was loading.
SERVER_WAIT_SECONDS = 5.0


class ChatREPL:
    """One chat at the terminal.

    /model replaces `state.engine`, so the engine to close at the end may not be the one passed here.
    store: where the conversation is saved. saved_as: the name of the saved conversation that this chat
    continues. with_figures: the figures of a turn are shown after it.
    """

    def __init__(
        self,
        engine: Engine,
        session: Session,
        name: str,
        tools: ChatTools,
        store: ConversationStore,
        saved_as: str = "",
        with_figures: bool = False,
    ):
        console = SafeConsole(theme=console_theme())
        self.state = state = ChatState(
            engine=engine,
            session=session,
            model=name,
            console=console,
            printer=make_terminal_printer(console, with_figures, self._footer),
            store=store,
            tools=tools,
            show_turn=self._show_turn,
            name=saved_as,
        )
        self._panel = ThoughtsPanel(console, lambda: state.printer.thoughts)
        summaries = {name: command.summary for name, command in COMMANDS.items()}
        self._editor = LineEditor(ChatCompleter(summaries, choices(state)), self._status, self._panel)
        keys = {
            "c-o": self._toggle_thoughts,
            "pageup": lambda: self._panel.turn_page(-1),
            "pagedown": lambda: self._panel.turn_page(1),
            "escape": self._stop,
            "c-c": self._stop,
        }
        self._is_stopped = False
        editor = self._editor
        self._ahead = TypeAhead(editor.input, editor.output, editor.history, editor.pasted, keys)
        self._ahead.suspend = lambda stop: state.printer.suspend(stop)
        tools.approvals.ask = PermissionPrompt(
            console, state.printer, self._ahead, lambda: state.session.cancel()
        )

    def run(self) -> None:
        """Chat until the user leaves with Ctrl-D, /exit, or Ctrl-C twice."""
        with ended_by_signals(self._editor.end):
            self._run()

    def _run(self) -> None:
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
        """What the user sends: a message that was sent while a turn was running, or the next line."""
        state, ahead = self.state, self._ahead
        if (queued := ahead.take_queued()) is not None:
            return without_quotes(queued)
        if ahead.wants_to_leave:
            raise EOFError
        draft = "\n".join(filter(None, [state.take_draft(), ahead.draft]))
        ahead.draft = ""
        return self._editor.read(draft, state.is_editing, state.prefill_ahead)

    def _handle(self, text: str) -> None:
        state = self.state
        try:
            if is_command(text):
                state.is_editing = False
                self._echo(text)
                run_command(state, text)
            elif text.strip():
                self._send(text)
        except DistributedError:
            raise  # nothing can run any more
        except Qwen3Error as error:
            state.print_error(chat_error_line(error))
        except Exception as error:  # the chat goes on
            if os.environ.get("MLX_QWEN3_DEBUG"):
                raise
            state.print_error(f"unexpected {type(error).__name__}: {error}")
        if text.strip():
            state.console.print()

    def _echo(self, text: str) -> None:
        """Print what was sent, of which the line editor leaves nothing on a capable terminal."""
        console, shown = self.state.console, self._editor.pasted.collapse(text)
        if console.is_dumb_terminal:
            return
        if is_command(text):
            self.state.print_line(f"> {shown}")
        else:
            console.print(user_message(shown))
            console.print()

    def _send(self, text: str) -> None:
        """Send `text` after the attachments. If the turn was not recorded, keep both for the next prompt."""
        state, session = self.state, self.state.session
        before, is_editing = session.messages, state.is_editing
        state.is_editing = False
        self._echo(text)
        message = "\n\n".join([*state.attachments, text])
        try:
            self._show_turn(session.edit(message) if is_editing else session.send(message))
        finally:
            if session.messages is before:
                state.draft = text
            else:
                state.attachments.clear()

    def _show_turn(self, events: Iterator[Event]) -> None:
        """Print a turn as it runs. Ctrl-C stops it; the text so far is kept."""
        state = self.state
        self._is_stopped = self._editor.is_interrupted
        with cancel_on_interrupt(self._stop), self._ahead, state.printer:
            for event in events:
                state.printer.show(event)
                if self._is_stopped:  # pressed before the turn could be cancelled
                    state.session.cancel()
        if self._is_stopped:
            self._ahead.unqueue()
        self._save()

    def _status(self) -> str:
        return toolbar(self.state, shutil.get_terminal_size().columns)

    def _footer(self) -> RenderableType | None:
        """What is drawn below a running turn: the input line and the status line."""
        if not self._ahead.is_running:
            return None
        line = input_line(self._ahead.document, self._ahead.queued, "Esc stops, Ctrl-O shows the thinking")
        status = Text(self._status(), style="bright_black", no_wrap=True, overflow="ellipsis")
        if not self._panel.is_open:
            return Group(line, status)
        thinking = Text("\n".join(self._panel.lines()), style="italic bright_black", no_wrap=True)
        return Group(thinking, Text(), line, status)

    def _toggle_thoughts(self) -> None:
        """Handle Ctrl-O during a turn."""
        if not self.state.printer.toggle_thoughts():
            self._panel.toggle()

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
        title = Text.assemble(
            (printable(state.model), "bold cyan"),
            (f"  {parameters} parameters · {state.context_label}", "bright_black"),
        )
        state.console.print(title)
        if state.model == "demo":
            state.print_line(DEMO_NOTE.format(program=program()))
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
            state.console.print()
        state.print_line("/help for help · Ctrl-D leaves\n")
