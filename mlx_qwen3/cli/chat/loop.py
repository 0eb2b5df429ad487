"""Chatting at a terminal: read a line, run the command or the turn, again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console

from mlx_qwen3.cli.chat.approve import Approver
from mlx_qwen3.cli.chat.commands import COMMANDS, ChatState, choices, is_command, run_command
from mlx_qwen3.cli.chat.input import ChatCompleter, make_prompt
from mlx_qwen3.cli.chat.interrupt import cancel_on_interrupt
from mlx_qwen3.cli.chat.render import make_terminal_printer
from mlx_qwen3.cli.chat.store import Store
from mlx_qwen3.errors import MessageError, Qwen3Error

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.tools import ChatTools
    from mlx_qwen3.engine import Engine
    from mlx_qwen3.events import Event
    from mlx_qwen3.session import Session

DEMO_NOTE = (
    "This is the built-in demo, a tiny Qwen3 trained to do sums and to answer questions about this "
    "program. For the real thing: mlx-qwen3 chat --model 14b (8.3 GB)"
)
DOUBLE_PRESS_SECONDS = 2.0


class ChatLoop:
    """One chat at the terminal. `engine` may be exchanged by /model; whoever is in use is `engine`."""

    def __init__(self, engine: Engine, session: Session, name: str, tools: ChatTools):
        console = Console(highlight=False)
        self.state = ChatState(
            engine=engine,
            session=session,
            model=name,
            console=console,
            printer=make_terminal_printer(console),
            store=Store(),
            tools=tools,
            play=self._play,
        )
        tools.approvals.ask = Approver(console, self.state.printer)
        tools.approvals.tell = self.state.say
        self._prompt = make_prompt(ChatCompleter(COMMANDS, choices(self.state)), self._toolbar)

    def run(self) -> None:
        """Chat until the user leaves with Ctrl-D, /exit, or Ctrl-C twice."""
        self._greet()
        pressed_at = 0.0
        while not self.state.is_over:
            try:
                text = self._prompt.prompt("> ", default=self.state.take_draft())
                if text.strip():
                    self._handle(text)
            except EOFError:
                return
            except KeyboardInterrupt:
                if time.monotonic() - pressed_at < DOUBLE_PRESS_SECONDS:
                    return
                pressed_at = time.monotonic()
                self.state.say("Ctrl-C again or Ctrl-D leaves")

    def _handle(self, text: str) -> None:
        state = self.state
        try:
            if is_command(text):
                run_command(state, text)
            else:
                self._play(state.session.send(state.with_attachments(text)))
        except Qwen3Error as error:
            state.console.print(f"error: {error}", style="red", markup=False)

    def _play(self, events: Iterator[Event]) -> None:
        """Show a turn; Ctrl-C stops it and keeps the text so far."""
        state = self.state
        try:
            with cancel_on_interrupt(state.session):
                for event in events:
                    state.printer.show(event)
        finally:
            state.printer.stop()
        state.console.print()
        self._keep()
        state.session.prepare()

    def _keep(self) -> None:
        """Save the conversation, so that a killed chat can be resumed after its last turn."""
        state = self.state
        if state.session.messages:
            try:
                state.session.save(state.store.path(state.name))
                state.store.make_room()
            except MessageError as error:
                state.say(f"not saved: {error}")

    def _greet(self) -> None:
        state = self.state
        size = state.engine.model.args.num_parameters
        shown = f"{size / 1e9:.1f}B" if size >= 1e9 else f"{size / 1e6:.1f}M"
        title = f"{state.model} · {shown} parameters · {_context(state.engine)}"
        state.console.print(title, style="bold", markup=False)
        if state.model == "demo":
            state.say(DEMO_NOTE)
        for status in state.tools.servers.statuses if state.tools.servers else []:
            problem = f": {status.problem}" if status.problem else f", {status.tools} tools"
            state.say(f"MCP server {status.name}: {status.state}{problem}")
        state.say("/help for help\n")

    def _toolbar(self) -> str:
        session, engine = self.state.session, self.state.engine
        mode = "thinking" if session.thinking else "no thinking"
        if session.thinking and session.thinking_budget is not None:
            mode += f" up to {session.thinking_budget:,}"
        room = engine.cache_options.get("max_size") or session.context
        held = min(session.tokens, room)
        used = f"context {held:,} of {room:,} ({held / room:.0%})"
        parts = [self.state.model, mode, used, f"{session.cache_bytes / 2**20:.0f} MiB"]
        if session.last_stats is not None:
            parts.append(f"{session.last_stats.tokens_per_second:.1f} tokens/s")
        return " " + " · ".join(parts)


def _context(engine: Engine) -> str:
    window = engine.cache_options.get("max_size")
    if window:
        return f"window {window:,}"
    limit = " that there is memory for; --kv-bits 8 holds more" if engine.plan.is_limited else ""
    return f"context {engine.context:,}{limit}"
