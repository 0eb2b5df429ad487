"""Slash commands that act on the conversation: attach, retry, edit, copy, compact, save and load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlx_qwen3.cli.chat.terminal.markdown import last_code_block, render_markdown
from mlx_qwen3.cli.output import printable
from mlx_qwen3.errors import MessageError
from mlx_qwen3.files import read_bytes

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.state import ChatState

MAX_FILE_BYTES = 2_000_000  # more fits no context
MAX_SESSIONS_LISTED = 20
MAX_QUESTION_LINES = 3  # of the last question, printed when a conversation is resumed


def attach(state: ChatState, argument: str) -> None:
    """PATH: put a text file before your next message; off: remove it"""
    if argument == "off":
        state.attachments.clear()
        state.print_line("no file goes before your next message")
        return
    path = Path(argument).expanduser()
    text = _read_text(path) if argument else ""
    if not text.strip():
        raise MessageError(f"{path} is empty" if argument else "/file takes the path of a text file")
    state.attachments.append(f"{path.name}:\n\n{text}")
    tokens = len(state.engine.tokenizer.encode(text))
    state.print_line(f"{path.name} ({tokens:,} tokens) goes before your next message")


def retry(state: ChatState, _: str) -> None:
    """answer the last message again"""
    state.show_turn(state.session.retry())


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
    state.print_line(f"copied {len(text):,} characters")


def compact(state: ChatState, _: str) -> None:
    """replace the conversation by a summary of it"""
    if not any(message["role"] == "user" for message in state.session.messages):
        raise MessageError("nothing was said yet")
    before = state.session.messages
    state.show_turn(state.session.compact())
    if state.session.messages is not before:
        replaced = sum(message["role"] != "system" for message in before)
        state.print_line(f"this summary replaces the {_counted(replaced, 'message')} before it")


def clear(state: ChatState, _: str) -> None:
    """start a new conversation; this one stays in /sessions"""
    state.session.clear()
    state.attachments.clear()
    state.name = ""
    state.print_line("conversation cleared")


def save(state: ChatState, argument: str) -> None:
    """NAME: keep the conversation under a name"""
    if not argument:
        raise MessageError("/save takes a name, such as /save holiday plans")
    state.store.save_as(argument, state.session.save)
    if state.name != argument:
        state.store.delete_automatic(state.name)
    state.name = argument
    state.print_line(f"saved as {argument}")


def load(state: ChatState, argument: str) -> None:
    """NAME, or its number in /sessions: continue a saved conversation; alone: the latest"""
    path = state.store.find(argument) if argument else state.store.latest()
    state.save_cache()
    state.store.mark_read(path)
    state.session = type(state.session).load(
        state.engine, path, tools=state.tools.toolbox, approve=state.tools.approvals
    )
    state.name = path.stem
    state.load_cache()
    show_latest_turn(state)


def sessions(state: ChatState, _: str) -> None:
    """list saved conversations"""
    saved = state.store.list()
    if not saved:
        state.print_line("nothing is saved yet")
    state.print_rows(
        (str(number), f"{entry.changed:%Y-%m-%d %H:%M}", entry.label)
        for number, entry in enumerate(saved[:MAX_SESSIONS_LISTED], 1)
    )


def show_latest_turn(state: ChatState) -> None:
    """Print the title of a resumed conversation and its latest question and answer."""
    conversation = state.session.conversation
    state.print_line(f"{conversation.title} · {_counted(len(conversation.messages), 'message')}")
    last = conversation.messages[-1:]
    if not last or last[0]["role"] != "assistant":
        return
    lines = printable(conversation.branch().take_back()).strip().splitlines()
    question = "\n> " + "\n  ".join(lines[:MAX_QUESTION_LINES])
    if len(lines) > MAX_QUESTION_LINES:
        question += f"\n... (+{_counted(len(lines) - MAX_QUESTION_LINES, 'line')})"
    state.print_line(question)
    state.console.print(render_markdown(printable(conversation.last_answer())))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _read_text(path: Path) -> str:
    try:
        data = read_bytes(path, MAX_FILE_BYTES)
        if len(data) > MAX_FILE_BYTES:
            size = path.stat().st_size / 1e6
            raise MessageError(
                f"{path} has {size:,.1f} MB; /file takes text of up to {MAX_FILE_BYTES / 1e6:.0f} MB"
            )
    except OSError as error:
        raise MessageError(f"{path} cannot be read: {error.strerror}") from None
    if b"\0" in data:
        raise MessageError(f"{path} is not a text file")
    return data.decode("utf-8-sig", errors="replace")
