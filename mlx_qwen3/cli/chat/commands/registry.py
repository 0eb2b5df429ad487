"""The chat's slash commands: which there are, and how one is found and run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import fields

from mlx_qwen3.cli.chat.commands import conversation, settings
from mlx_qwen3.cli.chat.state import ChatState
from mlx_qwen3.errors import MessageError

Command = Callable[[ChatState, str], None]


def show_help(state: ChatState, _: str) -> None:
    """show this list"""
    state.say_rows((name, function.__doc__ or "") for name, function in COMMANDS.items())
    state.say("")
    state.say_rows(KEYS.items())


def leave(state: ChatState, _: str) -> None:
    """leave; so does Ctrl-D"""
    state.is_over = True


# The docstring of each is its line in /help.
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
    "/mcp": settings.mcp,
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
# As people type them in other programs.
ALIASES = {"/?": "/help", "/quit": "/exit", "/bye": "/exit", "exit": "/exit", "quit": "/exit"}

KEYS = {
    "Esc Enter": 'starts a new line; so do Ctrl-J, Enter after a \\, and Enter after an opening """',
    "Ctrl-O": "shows what the model thought last; while it thinks: keeps its thoughts on the screen",
    "Ctrl-C": "stops an answer, as does Esc; clears what is typed; twice on an empty line: leaves",
    "Ctrl-R": "searches what was typed before; Tab completes commands, files and models",
}


def is_command(text: str) -> bool:
    """Whether `text` is for the chat and not for the model.

    A line that starts with a slash is, unless it is /think or /no_think followed by more: inside a
    message these two belong to the model. A path like /etc/hosts is text.
    """
    first, _, rest = text.strip().partition(" ")
    if text.strip() in ALIASES:
        return True
    if not first.startswith("/") or "/" in first[1:] or "\n" in text.strip():
        return False
    return not (first in ("/think", "/no_think") and rest.strip())


def run_command(state: ChatState, text: str) -> None:
    """Run the command `text`. Raises MessageError naming the nearest one if there is none."""
    name, _, argument = text.strip().partition(" ")
    function = COMMANDS.get(ALIASES.get(name, name))
    if function is None:
        # Without the slash, which all names share.
        near = difflib.get_close_matches(name.removeprefix("/"), [known[1:] for known in COMMANDS], n=1)
        hint = f"did you mean /{near[0]}?" if near else "/help lists them"
        raise MessageError(f"there is no command {name}; {hint}")
    function(state, argument.strip())


def choices(state: ChatState) -> dict[str, Callable[[], Iterable[str]]]:
    """What may follow a command, for completion."""
    from mlx_qwen3.checkpoint import FAMILY
    from mlx_qwen3.generation.sampling import SamplingParams

    return {
        "/load": lambda: [saved.name for saved in state.store.list()],
        "/model": lambda: ["demo", *FAMILY],
        "/set": lambda: [*(item.name for item in fields(SamplingParams)), "keep", "reset"],
        "/budget": lambda: ["off"],
        "/system": lambda: ["off"],
        "/copy": lambda: ["code"],
        "/file": lambda: ["off"],
        "/tools": lambda: ["on", "off", "forget"],
        "/mcp": lambda: ["prompts", "resources", "restart", "prompt", "read"],
    }
