"""The chat's slash commands: one function each; its docstring is its line in /help."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_qwen3.cli.chat.render import printable
from mlx_qwen3.errors import CacheError, MessageError, SamplingError

if TYPE_CHECKING:
    from rich.console import Console

    from mlx_qwen3.cli.chat.render import Printer
    from mlx_qwen3.cli.chat.store import Store
    from mlx_qwen3.cli.chat.tools import ChatTools
    from mlx_qwen3.engine import Engine
    from mlx_qwen3.events import Event
    from mlx_qwen3.session import Session

WORTH_SAVING = 256  # tokens; fewer are read again in no time
LARGEST_FILE = 2_000_000  # bytes; more fits no context


@dataclass
class ChatState:
    """What commands act on. `play` shows a turn; `name` is what the conversation is saved under."""

    engine: Engine
    session: Session
    model: str
    console: Console
    printer: Printer
    store: Store
    tools: ChatTools
    play: Callable[[Iterator[Event]], None]
    name: str = ""
    draft: str = ""
    attachments: list[str] = field(default_factory=list)
    is_over: bool = False

    def __post_init__(self) -> None:
        self.name = self.name or self.store.new_name()

    def say(self, text: str) -> None:
        """Print a line of the chat's own."""
        self.console.print(text, style="dim", markup=False, highlight=False)

    def park(self) -> None:
        """Save what the model has read of a long conversation, which is left now."""
        caches = self.store.caches
        if self.session.tokens >= WORTH_SAVING and self.session.cache_bytes <= caches.limit:
            try:
                self.session.save_cache(caches.path(self.name))
            except CacheError as error:
                self.say(f"what was read is not saved: {error}")
            caches.make_room()

    def resume(self) -> None:
        """Take what was saved so."""
        try:
            if path := self.store.caches.use(self.name):
                self.session.load_cache(path)
        except CacheError as error:
            self.say(str(error))

    def take_draft(self) -> str:
        """What the input line starts with, once."""
        draft, self.draft = self.draft, ""
        return draft

    def with_attachments(self, text: str) -> str:
        """`text` after the files attached to it."""
        parts, self.attachments = [*self.attachments, text], []
        return "\n\n".join(parts)


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
    state.say(state.printer.thoughts.strip() or "there was no thinking yet")


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
    if not argument:
        state.say(state.session.conversation.system or "no system message")
        return
    state.session.conversation.messages = [{"role": "system", "content": argument}]
    state.say("system message set, conversation cleared")


@command("/clear")
def clear(state: ChatState, _: str) -> None:
    """forget the conversation"""
    state.session.clear()
    state.name = state.store.new_name()
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
        shown = {float: "{:.3f}", int: "{:,}", str: "{}"}[type(value)].format(value)
        state.say(f"  {name:<26} {shown}")


@command("/tools")
def tools(state: ChatState, argument: str) -> None:
    """on, off: offer get_time and calculator; alone: list the tools and those always allowed"""
    if argument in ("on", "off"):
        state.tools.builtin.enabled = argument == "on"
    elif argument.startswith("forget"):
        state.tools.approvals.forget(argument.removeprefix("forget").strip() or None)
    elif argument:
        raise MessageError("/tools takes on, off, or forget NAME to be asked again")
    for name, offered in state.tools.toolbox.tools.items():
        allowed = " (always allowed)" if state.tools.approvals.is_allowed(offered) else ""
        state.say(f"  {name:<20} {printable(offered.description).splitlines()[0][:80]}{allowed}")
    if not state.tools.toolbox.names:
        state.say("no tools are offered; /tools on offers get_time and calculator")


@command("/mcp")
def mcp(state: ChatState, argument: str) -> None:
    """alone: the servers; prompts, resources: what they offer; restart, prompt and read NAME ..."""
    from mlx_qwen3.cli.chat.mcp import run_mcp_command

    run_mcp_command(state, argument)


@command("/retry")
def retry(state: ChatState, _: str) -> None:
    """answer the last message anew"""
    state.play(state.session.retry())


@command("/edit")
def edit(state: ChatState, _: str) -> None:
    """change the last message and send it again"""
    state.draft = state.session.conversation.take_back()


@command("/copy")
def copy_answer(state: ChatState, _: str) -> None:
    """put the last answer on the clipboard"""
    from mlx_qwen3.cli.chat.clipboard import copy

    answer = state.session.conversation.last_answer()
    copy(answer)
    state.say(f"copied {len(answer):,} characters")


@command("/file")
def attach(state: ChatState, argument: str) -> None:
    """PATH: put a text file before your next message"""
    path = Path(argument).expanduser()
    try:
        data = path.read_bytes() if argument else b""
    except OSError as error:
        raise MessageError(f"{path} cannot be read: {error.strerror}") from None
    if not data or len(data) > LARGEST_FILE or b"\0" in data:
        raise MessageError(f"/file takes a text file of up to {LARGEST_FILE:,} bytes, not {argument!r}")
    text = data.decode("utf-8", errors="replace")
    state.attachments.append(f"{path.name}:\n\n{text}")
    state.say(f"{path.name} ({len(text):,} characters) goes before your next message")


@command("/compact")
def compact(state: ChatState, _: str) -> None:
    """summarise the conversation and go on from the summary"""
    if not state.session.messages:
        raise MessageError("nothing was said yet")
    state.play(state.session.compact())


@command("/save")
def save(state: ChatState, argument: str) -> None:
    """NAME: keep the conversation under a name"""
    if not argument:
        raise MessageError("/save takes a name, such as /save holiday plans")
    state.session.save(state.store.path(argument))
    state.name = argument
    state.say(f"saved as {argument}")


@command("/load")
def load(state: ChatState, argument: str) -> None:
    """NAME: go on with a saved conversation"""
    if not argument:
        raise MessageError("/load takes the name of a conversation; /sessions lists them")
    path = state.store.find(argument)
    state.park()
    offered = {"tools": state.tools.toolbox, "approve": state.tools.approvals}
    state.session = type(state.session).load(state.engine, path, **offered)
    state.name = path.stem
    state.resume()
    title = state.session.conversation.title
    state.say(f"{title} · {len(state.session.messages)} messages")
    state.session.prepare()


@command("/sessions")
def sessions(state: ChatState, _: str) -> None:
    """list saved conversations"""
    saved = state.store.list()
    for entry in saved[:20]:
        state.say(f"  {entry.name:<20} {entry.changed:%Y-%m-%d %H:%M}  {entry.title}")
    if not saved:
        state.say("nothing is saved yet")


@command("/model")
def model(state: ChatState, argument: str) -> None:
    """NAME: go on with another model; alone: say which this is"""
    from mlx_qwen3.engine import Engine

    if not argument:
        state.say(f"{state.model} · context {state.engine.context:,}")
        return
    state.say(f"loading {argument} ...")
    options = state.engine.cache_options
    engine = Engine(  # raises before anything is changed
        argument, max_kv_size=options.get("max_size"), kv_bits=options.get("bits")
    )
    state.session = state.session.move_to(engine)
    state.engine.close()
    state.engine, state.model = engine, argument
    state.say(f"{argument} · context {engine.context:,}")


@command("/exit", "/quit", "/bye")
def leave(state: ChatState, _: str) -> None:
    """leave; so does Ctrl-D"""
    state.is_over = True


def choices(state: ChatState) -> dict[str, Callable[[], Iterable[str]]]:
    """What may follow a command, for completion."""
    from mlx_qwen3.checkpoint import FAMILY
    from mlx_qwen3.sampling import SamplingParams

    return {
        "/load": lambda: [saved.name for saved in state.store.list()],
        "/model": lambda: ["demo", *FAMILY],
        "/set": lambda: [item.name for item in fields(SamplingParams)],
        "/budget": lambda: ["off"],
        "/tools": lambda: ["on", "off", "forget"],
        "/mcp": lambda: ["prompts", "resources", "restart", "prompt", "read"],
    }


def _as_dict(session: Session) -> dict[str, Any]:
    return dict(session.sampling) if isinstance(session.sampling, dict) else {}


def _number(name: str, value: str) -> int | float:
    try:
        return float(value) if "." in value else int(value)
    except ValueError:
        raise SamplingError(f"/set {name} needs a number, not {value!r}") from None
