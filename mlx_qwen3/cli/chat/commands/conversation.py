"""Commands that act on the conversation: what was said, what comes next, and where it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlx_qwen3.cli.chat.terminal.markdown import last_code_block, render_markdown
from mlx_qwen3.cli.chat.terminal.printers import printable
from mlx_qwen3.errors import MessageError

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.state import ChatState

LARGEST_FILE = 2_000_000  # bytes; more fits no context
SESSIONS_SHOWN = 20
LINES_SHOWN = 3  # of what was said last in a conversation one comes back to


def attach(state: ChatState, argument: str) -> None:
    """PATH: put a text file before your next message; off: take it back"""
    if argument == "off":
        state.attachments.clear()
        state.say("no file goes before your next message")
        return
    path = Path(argument).expanduser()
    text = _read_text(path) if argument else ""
    if not text.strip():
        raise MessageError(f"{path} is empty" if argument else "/file takes the path of a text file")
    state.attachments.append(f"{path.name}:\n\n{text}")
    tokens = len(state.engine.tokenizer.encode(text))
    state.say(f"{path.name} ({tokens:,} tokens) goes before your next message")


def retry(state: ChatState, _: str) -> None:
    """answer the last message anew"""
    state.play(state.session.retry())


def edit(state: ChatState, _: str) -> None:
    """change the last message and send it again"""
    state.draft = state.session.conversation.branch().take_back()
    state.is_editing = True


def copy_answer(state: ChatState, argument: str) -> None:
    """put the last answer on the clipboard; code: the last block of code in it"""
    from mlx_qwen3.cli.chat.terminal.clipboard import copy

    if argument not in ("", "code"):
        raise MessageError("/copy takes nothing, or code")
    text = state.session.conversation.last_answer()
    if argument:
        text = last_code_block(text)
    copy(text)
    state.say(f"copied {len(text):,} characters")


def compact(state: ChatState, _: str) -> None:
    """summarise the conversation and go on from the summary"""
    if not any(message["role"] == "user" for message in state.session.messages):
        raise MessageError("nothing was said yet")
    before = state.session.messages
    state.play(state.session.compact())
    if state.session.messages is not before:
        said = sum(message["role"] != "system" for message in before)
        state.say(f"this summary has taken the place of the {_counted(said, 'message')} before it")


def clear(state: ChatState, _: str) -> None:
    """start a new conversation; this one stays in /sessions"""
    state.session.clear()
    state.attachments.clear()
    state.name = ""
    state.say("conversation cleared")


def save(state: ChatState, argument: str) -> None:
    """NAME: keep the conversation under a name"""
    if not argument:
        raise MessageError("/save takes a name, such as /save holiday plans")
    state.session.save(state.store.path(argument))
    if state.name != argument:
        state.store.forget_automatic(state.name)
    state.name = argument
    state.say(f"saved as {argument}")


def load(state: ChatState, argument: str) -> None:
    """NAME, or its number in /sessions: go on with a saved conversation; alone: with the latest"""
    path = state.store.find(argument) if argument else state.store.latest()
    state.park()
    offered = {"tools": state.tools.toolbox, "approve": state.tools.approvals}
    state.session = type(state.session).load(state.engine, path, **offered)
    state.name = path.stem
    state.resume()
    show_where_we_were(state)


def sessions(state: ChatState, _: str) -> None:
    """list saved conversations"""
    saved = state.store.list()
    if not saved:
        state.say("nothing is saved yet")
    state.say_rows(
        (str(number), f"{entry.changed:%Y-%m-%d %H:%M}", entry.shown)
        for number, entry in enumerate(saved[:SESSIONS_SHOWN], 1)
    )


def show_where_we_were(state: ChatState) -> None:
    """The title of a conversation one comes back to, and what was said last."""
    conversation = state.session.conversation
    state.say(printable(f"{conversation.title} · {_counted(len(conversation.messages), 'message')}"))
    last = conversation.messages[-1:]
    if not last or last[0]["role"] != "assistant":
        return
    asked = printable(conversation.branch().take_back()).strip().splitlines()
    more = [f"... (+{_counted(len(asked) - LINES_SHOWN, 'line')})"] if len(asked) > LINES_SHOWN else []
    state.say("\n" + "\n".join(["> " + "\n  ".join(asked[:LINES_SHOWN]), *more]))
    state.console.print(render_markdown(printable(conversation.last_answer())))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise MessageError(
                f"{path} has {size / 1e6:,.1f} MB; /file takes text of up to {LARGEST_FILE / 1e6:.0f} MB"
            )
        data = path.read_bytes()
    except OSError as error:
        raise MessageError(f"{path} cannot be read: {error.strerror}") from None
    if b"\0" in data:
        raise MessageError(f"{path} is no text file")
    return data.decode("utf-8", errors="replace")
