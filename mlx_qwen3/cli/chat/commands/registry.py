"""The table of slash commands, and how a command is found and run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import fields

from mlx_qwen3.cli.chat.commands import conversation, settings
from mlx_qwen3.cli.chat.commands.mcp import mcp
from mlx_qwen3.cli.chat.state import ChatState
from mlx_qwen3.errors import MessageError

Command = Callable[[ChatState, str], None]


def show_help(state: ChatState, _: str) -> None:
    """show this list"""
    state.print_rows((name, function.__doc__ or "") for name, function in COMMANDS.items())
    state.print_line("")
    state.print_rows(KEYS.items())


def leave(state: ChatState, _: str) -> None:
    """leave; so does Ctrl-D"""
    state.is_over = True


# The docstring of each function is its line in /help.
COMMANDS: dict[str, Command] = {
    "/help": show_help,
    "/think": settings.think,
    "/no_think": settings.no_think,
    "/budget": settings.budget,
    "/thoughts": settings.thoughts,
    "/system": settings.system,
    "/set": settings.set_value,
    "/model": settings.switch_model,
    "/tools": settings.tools,
    "/mcp": mcp,
    "/stats": settings.stats,
    "/file": conversation.attach,
    "/retry": conversation.retry,
    "/edit": conversation.edit,
    "/copy": conversation.copy_answer,
    "/compact": conversation.compact,
    "/clear": conversation.clear,
    "/save": conversation.save,
    "/load": conversation.load,
    "/sessions": conversation.sessions,
    "/exit": leave,
}
# Names of these commands in other programs.
ALIASES = {"/?": "/help", "/quit": "/exit", "/bye": "/exit", "exit": "/exit", "quit": "/exit"}

KEYS = {
    "Esc Enter": 'starts a new line; so do Ctrl-J, Enter after a \\, and Enter after an opening """',
    "Ctrl-O": "shows the latest thinking; while the model thinks: keeps its thoughts on the screen",
    "Ctrl-C": "stops an answer, and so does Esc; clears the line; twice on an empty line: leaves",
    "Ctrl-R": "searches the history; Tab completes commands, files and models",
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
    function = COMMANDS.get(ALIASES.get(name, name))
    if function is None:
        # Compare without the slash: it would make all names more alike.
        near = difflib.get_close_matches(name.removeprefix("/"), [command[1:] for command in COMMANDS], n=1)
        hint = f"did you mean /{near[0]}?" if near else "/help lists them"
        raise MessageError(f"there is no command {name}; {hint}")
    function(state, argument.strip())


def choices(state: ChatState) -> dict[str, Callable[[], Iterable[str]]]:
    """For completion: the arguments that a command can take."""
    from mlx_qwen3.checkpoint import FAMILY
    from mlx_qwen3.generation.params import SamplingParams

    parameters = [item.name for item in fields(SamplingParams) if item.name not in settings.NOT_SETTABLE]
    return {
        "/load": lambda: [saved.name for saved in state.store.list()],
        "/model": lambda: ["demo", *FAMILY],
        "/set": lambda: [*parameters, "keep", "reset"],
        "/budget": lambda: ["off"],
        "/system": lambda: ["off"],
        "/copy": lambda: ["code"],
        "/file": lambda: ["off"],
        "/tools": lambda: ["on", "off", "forget"],
        "/mcp": lambda: ["prompts", "resources", "restart", "prompt", "read"],
    }
