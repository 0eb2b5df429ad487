"""`mlx-qwen3 chat`: answers one message from -p or a pipe, or chats at the terminal."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from mlx_qwen3.cli.distributed.options import DISTRIBUTED, HOSTS, engine_options
from mlx_qwen3.cli.errors import error_line
from mlx_qwen3.cli.flags import (
    ADAPTER,
    AUTO,
    DRAFT_MODEL,
    DTYPE,
    KV_BITS,
    MODEL,
    UNLOAD_AFTER,
    WIRED,
    device_options,
    draft_setting,
)
from mlx_qwen3.cli.output import write_note
from mlx_qwen3.errors import MessageError, Qwen3Error

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.saved_conversations import ConversationStore
    from mlx_qwen3.cli.chat.terminal.text import Printer
    from mlx_qwen3.cli.chat.tools import ChatTools
    from mlx_qwen3.engine import Engine
    from mlx_qwen3.engine.conversation import Conversation
    from mlx_qwen3.engine.session import Session
    from mlx_qwen3.grammar import AnswerSchema


def chat(
    model: Annotated[str | None, MODEL] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Answer this and exit; piped text goes before it.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume", "-r", metavar="[NAME]", help="Continue the latest conversation, or the one of a name."
        ),
    ] = None,
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="Let the model think before it answers.")
    ] = None,
    thinking_budget: Annotated[
        int | None, typer.Option(min=0, help="The most tokens the model may think for.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message; @FILE reads it from a file.")] = None,
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Context in tokens; beyond the native length, positions use YaRN."),
    ] = None,
    max_kv_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Keep only the first and the latest tokens, this many; a chat of any length."
        ),
    ] = None,
    kv_bits: Annotated[int | None, KV_BITS] = None,
    draft_model: Annotated[str, DRAFT_MODEL] = AUTO,
    adapter: Annotated[Path | None, ADAPTER] = None,
    dtype: Annotated[str, DTYPE] = AUTO,
    wired: Annotated[bool | None, WIRED] = None,
    unload_after: Annotated[float | None, UNLOAD_AFTER] = None,
    distributed: Annotated[str | None, DISTRIBUTED] = None,
    hosts: Annotated[Path | None, HOSTS] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The most tokens of one turn.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="0 takes the likeliest token; Qwen advises 0.6 when thinking, else 0.7."),
    ] = None,
    tools: Annotated[
        bool, typer.Option("--tools", help="Offer the built-in tools: get_time and calculator.")
    ] = False,
    mcp: Annotated[
        Path | None, typer.Option(help="Offer the tools of the MCP servers in this mcpServers file.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Allow a tool without asking: its name, or server.tool.")
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="Answer with JSON that follows the JSON schema in this file.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answers.")] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Show the figures of each answer: speed and tokens.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print events, one JSON object a line.")] = False,
    save_caches: Annotated[
        bool,
        typer.Option(
            "--save-caches/--no-save-caches",
            help="Keep KV caches of long conversations on disk, so that --resume goes on at once.",
        ),
    ] = True,
) -> None:
    """Chat with a Qwen3 model."""
    from mlx_qwen3.cli.chat.saved_conversations import ConversationStore
    from mlx_qwen3.cli.chat.terminal.printers import make_printer
    from mlx_qwen3.cli.chat.terminal.tty import quiet_terminal
    from mlx_qwen3.cli.chat.text_files import text_or_file
    from mlx_qwen3.cli.chat.tools import ChatTools
    from mlx_qwen3.cli.health.once import check_once

    ranks = engine_options(distributed, hosts)
    message = _message(prompt)
    answer_schema = _read_schema(schema, message)
    store = ConversationStore()
    store.saves_caches = save_caches
    saved = None if resume is None else store.find(resume) if resume else store.latest()
    if saved:
        store.mark_read(saved)
    conversation, defaults = _load(saved)
    remembered = None if model else defaults.get("model")
    chosen = None if model or remembered else _first_model(can_ask=message is None)
    name = model or remembered or chosen or "demo"
    flags = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    sampling = {flag: value for flag, value in flags.items() if value is not None}
    with ExitStack() as stack:
        chat_tools = stack.enter_context(closing(ChatTools(tools, mcp, allow or ())))
        if message is None and stack.enter_context(quiet_terminal()):
            return
        options: dict[str, Any] = {"context": context, "max_kv_size": max_kv_size, "kv_bits": kv_bits}
        options |= {"draft_model": draft_setting(draft_model), "adapter": adapter, **ranks}
        options |= device_options(dtype, wired, unload_after)
        if message is None:
            check_once(write_note)
        engine = stack.enter_context(_open(name, bool(remembered), bool(chosen), **options))
        session = engine.session(
            thinking=defaults.get("thinking", True) if think is None else think,
            thinking_budget=defaults.get("thinking_budget") if thinking_budget is None else thinking_budget,
            sampling={**(defaults.get("sampling") or {}), **sampling},
            tools=chat_tools.toolbox,
            approve=chat_tools.approvals,
        )
        if conversation:
            session.conversation = conversation
        if system is not None:
            session.conversation.system = text_or_file(system)
        if message is not None:
            _wait_for_servers(chat_tools)
            try:
                with make_printer(as_json, stats) as printer:
                    _answer_once(session, message, printer, answer_schema)
            finally:
                if saved:
                    _save_turn(session, store, saved.stem)
            return
        from mlx_qwen3.cli.chat.repl import ChatREPL

        repl = ChatREPL(engine, session, name, chat_tools, store, saved.stem if saved else "", stats)
        try:
            repl.run()
            repl.state.save_cache()
        finally:
            repl.state.engine.close()


def _save_turn(session: Session, store: ConversationStore, name: str) -> None:
    saved_as = store.save(name, session.save)
    if saved_as != name:
        write_note(f"another chat has saved {name}; this turn is in {saved_as}")


class ChatCommand(TyperCommand):
    """`--resume` may stand alone, or before the name of a conversation."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for place, argument in enumerate(args):
            is_alone = place + 1 == len(args) or args[place + 1].startswith("-")
            if argument in ("--resume", "-r") and is_alone:
                args = [*args[: place + 1], "", *args[place + 1 :]]
                break
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


def _wait_for_servers(tools: ChatTools) -> None:
    """Wait for all MCP servers. Their problems and denied calls are printed on stderr."""
    tools.notify = write_note
    for status in tools.wait_for_servers():
        if status.problem:
            tools.notify(f"MCP server {status.name} {status.state}: {status.problem}")
    for line in tools.unknown_allowed_tools():
        tools.notify(line)


def _load(saved: Path | None) -> tuple[Conversation | None, dict[str, Any]]:
    """The conversation to resume, and settings for the flags that are not given.

    The settings are those of the conversation, or without one those of the latest /set keep.
    """
    from mlx_qwen3.cli.chat.preferences import load_preferences
    from mlx_qwen3.engine.conversation import Conversation

    return Conversation.load(saved) if saved else (None, load_preferences())


def _first_model(can_ask: bool) -> str | None:
    """The model that the user chooses at the first run; None if there is no terminal to ask at."""
    if not (can_ask and sys.stdout.isatty()):
        return None
    from mlx_qwen3.cli.chat.first_run import choose_model
    from mlx_qwen3.cli.console import SafeConsole

    return choose_model(SafeConsole())


def _open(model: str, is_remembered: bool, is_chosen: bool, **options: Any) -> Engine:
    """Open the engine of `model`.

    is_remembered: the model comes from an earlier chat. is_chosen: the user chose it just now; the choice
    is remembered only once the model runs, because the next chat must not start with one that cannot.
    """
    from mlx_qwen3.cli.chat.preferences import remember
    from mlx_qwen3.cli.open_engine import open_engine

    try:
        engine = open_engine(model, **options)
    except Qwen3Error as error:
        if not is_remembered:
            raise
        raise type(error)(
            f"{error_line(error)}; {model} is the model of an earlier chat, --model names another"
        ) from error
    if is_chosen:
        with suppress(OSError):  # not remembered: the next chat asks again
            remember(model=model)
    return engine


def _message(prompt: str | None) -> str | None:
    """The one message to answer: the piped text, then the prompt. None to chat at the terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return prompt
    # A script may leave stdin open and empty; with -p, do not wait for it.
    piped = (
        "" if prompt is not None and not _has_input() else sys.stdin.buffer.read().decode("utf-8", "replace")
    )
    message = "\n\n".join(part for part in (piped.strip("\n"), prompt) if part)
    if not message.strip():
        raise MessageError("there is no message: standard input is empty; pipe in a question or use -p")
    return message


def _has_input() -> bool:
    """Whether stdin has something to read now, or is at its end."""
    import select

    return bool(select.select([sys.stdin], [], [], 0.2)[0])


def _read_schema(schema: Path | None, message: str | None) -> AnswerSchema | None:
    """The schema of --schema, checked before a model is loaded."""
    if schema is None:
        return None
    if message is None:
        raise typer.BadParameter("needs a single message: use -p, or pipe one in", param_hint="--schema")
    from mlx_qwen3.grammar import AnswerSchema

    return AnswerSchema.read(schema)


def _answer_once(session: Session, message: str, printer: Printer, schema: AnswerSchema | None) -> None:
    """Run one turn and print it."""
    from mlx_qwen3.cli.chat.terminal.tty import cancel_on_interrupt
    from mlx_qwen3.parsing import CollectedOutput

    output = CollectedOutput()
    with cancel_on_interrupt(session.cancel):
        for event in session.send(message, schema):
            printer.show(event)
            output.add(event)
    if printer.finish_reason == "cancelled":
        raise KeyboardInterrupt
    if schema is not None and schema.parse(output.answer) is None:
        reasons = {"length": "allow more with --max-tokens", "tool_calls": "it went on calling tools"}
        reason = reasons.get(printer.finish_reason or "", printer.finish_reason)
        raise MessageError(f"the turn ended before its JSON was complete: {reason}")
