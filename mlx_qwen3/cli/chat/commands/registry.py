"""The table of slash commands, and how a command is found and run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from mlx_qwen3.cli.chat.commands import conversation, settings
from mlx_qwen3.cli.chat.commands.mcp import mcp
from mlx_qwen3.cli.chat.state import ChatState
from mlx_qwen3.errors import MessageError


@dataclass(frozen=True)
class Command:
    """A slash command. usage: its arguments, as /help shows them; empty for a command that takes none."""

    run: Callable[[ChatState, str], None]
    group: str
    usage: str = ""

    @property
    def summary(self) -> str:
        """Its line in /help: the docstring of its function."""
        return self.run.__doc__ or ""


def show_help(state: ChatState, _: str) -> None:
    """show this list"""
    names = [f"{name} {command.usage}" for name, command in COMMANDS.items()]
    width = max(map(len, names))
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        state.print_heading(group)
        members = ((name, command) for name, command in COMMANDS.items() if command.group == group)
        state.print_rows(
            ((f"{name} {command.usage}".ljust(width), command.summary) for name, command in members)
        )
    state.print_heading("Keys")
    state.print_rows((key.ljust(width), summary) for key, summary in KEYS.items())


def leave(state: ChatState, _: str) -> None:
    """leave; so does Ctrl-D"""
    state.is_over = True


MODEL, CONVERSATION, TOOLS, CHAT = "Model and thinking", "Conversation", "Files and tools", "Chat"
COMMANDS: dict[str, Command] = {
    "/think": Command(settings.think, MODEL),
    "/no_think": Command(settings.no_think, MODEL),
    "/budget": Command(settings.budget, MODEL, "[N|off]"),
    "/thoughts": Command(settings.thoughts, MODEL),
    "/system": Command(settings.system, MODEL, "[TEXT|@FILE|off]"),
    "/set": Command(settings.set_value, MODEL, "[NAME VALUE|...]"),
    "/model": Command(settings.switch_model, MODEL, "[NAME]"),
    "/retry": Command(conversation.retry, CONVERSATION),
    "/edit": Command(conversation.edit, CONVERSATION),
    "/copy": Command(conversation.copy_answer, CONVERSATION, "[code]"),
    "/compact": Command(conversation.compact, CONVERSATION),
    "/clear": Command(conversation.clear, CONVERSATION),
    "/save": Command(conversation.save, CONVERSATION, "NAME"),
    "/load": Command(conversation.load, CONVERSATION, "[NAME|NUMBER]"),
    "/sessions": Command(conversation.sessions, CONVERSATION, "[delete|rename]"),
    "/file": Command(conversation.attach, TOOLS, "[PATH|off]"),
    "/tools": Command(settings.tools, TOOLS, "[on|off|forget]"),
    "/mcp": Command(mcp, TOOLS, "[prompts|...]"),
    "/stats": Command(settings.stats, CHAT),
    "/help": Command(show_help, CHAT),
    "/exit": Command(leave, CHAT),
}
# Names of these commands in other programs.
ALIASES = {"/?": "/help", "/quit": "/exit", "/bye": "/exit", "exit": "/exit", "quit": "/exit"}

KEYS = {
    "Enter": "sends; during an answer, it is sent when that has ended",
    "Esc Enter": 'new line; so do Ctrl-J and \\ Enter; """ opens several lines',
    "Esc, Ctrl-C": "stop an answer; Ctrl-C also clears the line, twice leaves",
    "Ctrl-O": "shows the latest thinking, or hides it; while it lasts, keeps it",
    "Ctrl-R": "searches the history",
    "Tab": "completes commands, files and models",
    "Ctrl-X Ctrl-E": "opens the line in your editor",
}


def is_command(text: str) -> bool:
    """Whether `text` is a slash command and not a message.

    A message may start with /think or /no_think, which are then for the model, or with a path such as
    /etc/hosts.
    """
    first, _, rest = text.strip().partition(" ")
    if text.strip() in ALIASES:
        return True
    if not first.startswith("/") or "/" in first[1:] or "\n" in text.strip():
        return False
    return not (first in ("/think", "/no_think") and rest.strip())


def run_command(state: ChatState, text: str) -> None:
    """Run the command `text`. Raises MessageError, with the nearest name, if there is no such command."""
    name, _, argument = text.strip().partition(" ")
    name = ALIASES.get(name, name)
    command = COMMANDS.get(name)
    if command is None:
        # Compare without the slash: it would make all names more alike.
        near = difflib.get_close_matches(name.removeprefix("/"), [known[1:] for known in COMMANDS], n=1)
        hint = f"did you mean /{near[0]}?" if near else "/help lists them"
        raise MessageError(f"there is no command {name}; {hint}")
    if argument.strip() and not command.usage:
        raise MessageError(f"{name} takes nothing after it")
    command.run(state, argument.strip())


def choices(state: ChatState) -> dict[str, Callable[[], Iterable[str]]]:
    """For completion: the arguments that a command can take."""
    from mlx_qwen3.checkpoint import FAMILY
    from mlx_qwen3.generation.params import SamplingParams

    parameters = [item.name for item in fields(SamplingParams) if item.name not in settings.NOT_SETTABLE]
    return {
        "/load": lambda: [saved.name for saved in state.store.list()],
        "/sessions": lambda: ["delete", "rename"],
        "/model": lambda: ["demo", *FAMILY],
        "/set": lambda: [*parameters, "adapter", "keep", "reset"],
        "/budget": lambda: ["off"],
        "/system": lambda: ["off"],
        "/copy": lambda: ["code"],
        "/file": lambda: ["off"],
        "/tools": lambda: ["on", "off", "forget"],
        "/mcp": lambda: ["prompts", "resources", "restart", "prompt", "read"],
    }
