"""Slash commands that act on the conversation: attach, retry, edit, copy, compact, save and load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlx_qwen3.cli.chat.terminal.markdown import Block, last_code_block, render_markdown
from mlx_qwen3.cli.chat.terminal.turns import user_message
from mlx_qwen3.cli.chat.text_files import paths_in, read_text
from mlx_qwen3.cli.output import printable
from mlx_qwen3.errors import MessageError

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.state import ChatState

MAX_SESSIONS_LISTED = 20
MAX_QUESTION_LINES = 3  # of the last question, printed when a conversation is resumed


def attach(state: ChatState, argument: str) -> None:
    """put a text file before your next message; alone: list them"""
    if argument == "off":
        state.attachments.clear()
        state.print_line("no file goes before your next message")
        return
    if not argument:
        _list_attachments(state)
        return
    for path in paths_in(argument):
        text = read_text(path)
        if not text.strip():
            raise MessageError(f"{path} is empty")
        attachment = f"{path.name}:\n\n{text}"
        if attachment in state.attachments:
            state.print_line(f"{path.name} goes before your next message already")
            continue
        state.attachments.append(attachment)
        tokens = len(state.engine.tokenizer.encode(attachment))
        state.print_line(f"{path.name} ({tokens:,} tokens) goes before your next message")
    waiting = sum(len(state.engine.tokenizer.encode(text)) for text in state.attachments)
    free = state.free_tokens
    if free is not None and waiting > free:
        state.print_line(
            f"that is more than the context has room for ({waiting:,} tokens, {free:,} are free); "
            "/file off removes it, /clear frees room"
        )


def _list_attachments(state: ChatState) -> None:
    if not state.attachments:
        state.print_line("no file goes before your next message; /file PATH puts a text file there")
        return
    count = state.engine.tokenizer.encode
    state.print_line("before your next message go:")
    state.print_rows(
        (text.partition("\n")[0].removesuffix(":")[:60], f"{len(count(text)):,} tokens")
        for text in state.attachments
    )


def retry(state: ChatState, _: str) -> None:
    """answer the last message again"""
    state.show_turn(state.session.retry())


def edit(state: ChatState, _: str) -> None:
    """change the last message and send it again"""
    state.draft = state.session.conversation.branch().take_back()
    state.is_editing = True


def copy_answer(state: ChatState, argument: str) -> None:
    """put the last answer, or the last code in it, on the clipboard"""
    from mlx_qwen3.cli.chat.terminal.clipboard import copy

    if argument not in ("", "code"):
        raise MessageError("/copy takes nothing, or code")
    text = state.session.conversation.last_answer()
    if argument:
        text = last_code_block(text)
    copy(text)
    state.print_line(f"copied {len(text):,} characters")


def compact(state: ChatState, _: str) -> None:
    """go on with a summary, in a new conversation; this one is kept"""
    if not any(message["role"] == "user" for message in state.session.messages):
        raise MessageError("nothing was said yet")
    before, name = state.session.messages, state.name
    state.name = ""  # the summary is saved as a conversation of its own
    try:
        state.show_turn(state.session.compact())
    finally:
        if state.session.messages is before:
            state.name = name
    if state.session.messages is not before:
        replaced = sum(message["role"] != "system" for message in before)
        state.print_line(
            f"this summary replaces the {_counted(replaced, 'message')} before it; all of them stay saved"
            + (f" as {name}" if name else "")
        )


def clear(state: ChatState, _: str) -> None:
    """start a new conversation; this one stays in /sessions"""
    state.session.clear()
    state.attachments.clear()
    state.name = ""
    state.print_line("conversation cleared; /sessions has it")


def save(state: ChatState, argument: str) -> None:
    """keep the conversation under a name"""
    if not argument:
        raise MessageError("/save takes a name, such as /save holiday plans")
    state.store.save_as(argument, state.session.save)
    if state.name != argument:
        state.store.delete_automatic(state.name)
    state.name = argument
    state.print_line(f"saved as {argument}")


def load(state: ChatState, argument: str) -> None:
    """continue a saved conversation; alone: the latest"""
    path = state.store.find(argument) if argument else state.store.latest()
    state.save_cache()
    state.store.mark_read(path)
    state.session = type(state.session).load(
        state.engine, path, tools=state.tools.toolbox, approve=state.tools.approvals
    )
    state.name = path.stem
    state.load_cache()
    show_latest_turn(state)


def sessions(state: ChatState, argument: str) -> None:
    """saved conversations; delete NAME; rename NAME to NEW"""
    action, _, rest = argument.partition(" ")
    match action:
        case "":
            _list_sessions(state)
        case "delete" if rest.strip():
            saved = state.store.find_listed(rest.strip())
            state.store.delete(saved.name)
            if saved.name == state.name:
                state.name = ""
            state.print_line(f"deleted: {saved.label}")
        case "rename" if " to " in rest:
            old, new = (part.strip() for part in rest.rsplit(" to ", 1))
            saved = state.store.find_listed(old)
            state.store.rename(saved.name, new)
            if saved.name == state.name:
                state.name = new
            state.print_line(f"renamed to {new}: {saved.title}")
        case _:
            raise MessageError("/sessions takes nothing, delete NAME, or rename NAME to NEW NAME")


def _list_sessions(state: ChatState) -> None:
    saved = state.store.list()
    if not saved:
        state.print_line("nothing is saved yet")
    state.print_rows(
        (
            str(number),
            entry.age,
            _counted(entry.turns, "turn"),
            f"{entry.tokens:,} tokens" if entry.tokens else "",
            entry.label + (" (this one)" if entry.name == state.name else ""),
        )
        for number, entry in enumerate(saved[:MAX_SESSIONS_LISTED], 1)
    )
    if len(saved) > MAX_SESSIONS_LISTED:
        state.print_line(f"  and {len(saved) - MAX_SESSIONS_LISTED:,} older ones")
    if saved:
        state.print_line("/load NUMBER goes on with one")


def show_latest_turn(state: ChatState) -> None:
    """Print the title of a resumed conversation and its latest question and answer."""
    conversation = state.session.conversation
    turns = sum(message["role"] == "user" for message in conversation.messages)
    state.print_line(f"{conversation.title} · {_counted(turns, 'turn')}")
    last = conversation.messages[-1:]
    if not last or last[0]["role"] != "assistant":
        return
    lines = printable(conversation.branch().take_back()).strip().splitlines()
    if len(lines) > MAX_QUESTION_LINES:  # a file goes before what was asked about it
        first, last_line = lines[: MAX_QUESTION_LINES - 2], lines[-1]
        lines = [*first, f"... (+{_counted(len(lines) - MAX_QUESTION_LINES + 1, 'line')})", last_line]
    question = "\n".join(lines)
    state.console.print()
    state.console.print(user_message(question))
    state.console.print()
    state.console.print(render_markdown(Block(printable(conversation.last_answer()))))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
