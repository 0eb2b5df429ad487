"""The chat's slash commands: one function each; its docstring is its line in /help."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlx_qwen3.errors import MessageError, SamplingError

if TYPE_CHECKING:
    from rich.console import Console

    from mlx_qwen3.session import Session


@dataclass
class ChatState:
    """What commands act on."""

    session: Session
    console: Console
    thoughts: Callable[[], str]
    is_over: bool = False

    def say(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False, highlight=False)


Command = Callable[[ChatState, str], None]
COMMANDS: dict[str, Command] = {}


def command(*names: str) -> Callable[[Command], Command]:
    """Register a function under `names`, the first being the one shown."""

    def register(function: Command) -> Command:
        COMMANDS.update(dict.fromkeys(names, function))
        return function

    return register


def is_command(text: str) -> bool:
    """Whether `text` is for the chat and not for the model.

    A line that starts with a slash is, unless it is /think or /no_think followed by more: inside a
    message these two belong to the model. A path like /etc/hosts is text.
    """
    first, _, rest = text.strip().partition(" ")
    if not first.startswith("/") or "/" in first[1:] or "\n" in text.strip():
        return False
    return not (first in ("/think", "/no_think") and rest.strip())


def run_command(state: ChatState, text: str) -> None:
    """Run the command `text`. Raises MessageError naming the nearest one if there is none."""
    name, _, argument = text.strip().partition(" ")
    function = COMMANDS.get(name)
    if function is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "/help lists them"
        raise MessageError(f"there is no command {name}; {hint}")
    function(state, argument.strip())


@command("/help", "/?")
def show_help(state: ChatState, _: str) -> None:
    """show this list"""
    shown: dict[Command, str] = {}
    for name, function in COMMANDS.items():
        shown.setdefault(function, name)
    for function, name in shown.items():
        state.say(f"  {name:<12} {function.__doc__}")
    state.say("  Esc Enter for a new line, Ctrl-C stops an answer, Ctrl-D leaves")


@command("/think")
def think(state: ChatState, _: str) -> None:
    """let the model think; inside a message it is the model's own switch"""
    state.session.thinking = True
    if state.session.thinking_budget == 0:
        state.session.thinking_budget = None
    state.say("thinking is on")


@command("/no_think")
def no_think(state: ChatState, _: str) -> None:
    """answer without thinking; inside a message it is the model's own switch"""
    state.session.thinking = False
    state.say("thinking is off")


@command("/thoughts")
def thoughts(state: ChatState, _: str) -> None:
    """show what the model thought last"""
    state.say(state.thoughts().strip() or "there was no thinking yet")


@command("/budget")
def budget(state: ChatState, argument: str) -> None:
    """N: think for at most N tokens; off: as long as it takes"""
    if argument in ("", "off", "none"):
        state.session.thinking_budget = None
        state.say("no thinking budget")
        return
    if not argument.isdecimal():
        raise MessageError(f"/budget takes a number of tokens or off, not {argument!r}")
    state.session.thinking_budget = int(argument)
    state.say(f"thinking stops after {int(argument):,} tokens")


@command("/system")
def system(state: ChatState, argument: str) -> None:
    """TEXT: set the system message and start anew; alone: show it"""
    messages = state.session.messages
    if not argument:
        current = [m["content"] for m in messages[:1] if m["role"] == "system"]
        state.say(current[0] if current else "no system message")
        return
    state.session.messages = [{"role": "system", "content": argument}]
    state.say("system message set, conversation cleared")


@command("/clear")
def clear(state: ChatState, _: str) -> None:
    """forget the conversation"""
    state.session.clear()
    state.say("conversation cleared")


@command("/set")
def set_sampling(state: ChatState, argument: str) -> None:
    """NAME VALUE: a sampling parameter, such as /set temperature 0.5; alone: show them"""
    session = state.session
    if not argument:
        for name, value in asdict(session.params()).items():
            state.say(f"  {name:<20} {value}")
        return
    name, _, value = argument.replace("=", " ").partition(" ")
    changed = {**_as_dict(session), name: _number(name, value.strip())}
    session.params().with_values(**changed)  # raises before anything is changed
    session.sampling = changed
    state.say(f"{name} is {changed[name]}")


@command("/stats")
def stats(state: ChatState, _: str) -> None:
    """figures of the last turn"""
    if state.session.last_stats is None:
        state.say("nothing was said yet")
        return
    for name, value in asdict(state.session.last_stats).items():
        shown = f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
        state.say(f"  {name:<26} {shown}")


@command("/exit", "/quit", "/bye")
def leave(state: ChatState, _: str) -> None:
    """leave; so does Ctrl-D"""
    state.is_over = True


def _as_dict(session: Session) -> dict[str, Any]:
    return dict(session.sampling) if isinstance(session.sampling, dict) else {}


def _number(name: str, value: str) -> int | float:
    try:
        return float(value) if "." in value else int(value)
    except ValueError:
        raise SamplingError(f"/set {name} needs a number, not {value!r}") from None
