"""Commands that say how the model answers, and show how it did."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from mlx_qwen3.cli.chat.preferences import remember
from mlx_qwen3.cli.chat.terminal.printers import printable
from mlx_qwen3.cli.open_engine import open_engine
from mlx_qwen3.errors import MessageError, SamplingError
from mlx_qwen3.tokenizer.chat_template import Thinking

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.state import ChatState
    from mlx_qwen3.events import Stats

OFF = ("off", "none")


def think(state: ChatState, _: str) -> None:
    """let the model think; inside a message it is the model's own switch"""
    ability = state.engine.tokenizer.template.thinking
    if ability is Thinking.NEVER:
        raise MessageError(f"{state.model} never thinks")
    state.session.thinking = True
    if state.session.thinking_budget == 0:
        state.session.thinking_budget = None
    state.say("thinking is on")


def no_think(state: ChatState, _: str) -> None:
    """answer without thinking; inside a message it is the model's own switch"""
    if state.engine.tokenizer.template.thinking is Thinking.ALWAYS:
        raise MessageError(f"{state.model} always thinks; /budget 0 has it answer at once")
    state.session.thinking = False
    state.say("thinking is off")


def thoughts(state: ChatState, _: str) -> None:
    """show what the model thought last; so does Ctrl-O"""
    state.say(state.printer.thoughts.strip() or "there was no thinking yet")


def budget(state: ChatState, argument: str) -> None:
    """N: think for at most N tokens; off: as long as it takes; alone: say which"""
    if argument and argument not in OFF and not argument.isdecimal():
        raise MessageError(f"/budget takes a number of tokens or off, not {argument!r}")
    if argument:
        state.session.thinking_budget = int(argument) if argument.isdecimal() else None
    tokens = state.session.thinking_budget
    if tokens is None:
        state.say("no thinking budget")
    else:
        state.say(f"thinking stops after {tokens:,} tokens" if tokens else "answers come without thinking")


def system(state: ChatState, argument: str) -> None:
    """TEXT: set the system message; off: have none; alone: show it"""
    conversation = state.session.conversation
    if argument:
        conversation.system = None if argument in OFF else argument
    if not argument or not conversation.system:
        state.say(conversation.system or "no system message")
    else:
        state.say("system message set")


def set_value(state: ChatState, argument: str) -> None:
    """NAME VALUE: sample so, as in /set temperature 0.5; reset: as Qwen advises; keep: in later chats too"""
    session = state.session
    name, _, value = argument.replace("=", " ").partition(" ")
    match name:
        case "":
            chosen = session.sampling_values
            state.say_rows(
                (key, str(now), "set by you" if key in chosen else "")
                for key, now in asdict(session.params()).items()
            )
        case "reset":
            session.sampling = None
            remember(sampling=None)
            state.say("sampling is as Qwen advises again")
        case "keep":
            _keep(state)
        case _:
            changed = {**session.sampling_values, name: _number(name, value.strip())}
            session.params().with_values(**changed)  # raises before anything is changed
            session.sampling = changed
            state.say(f"{name} is {changed[name]}")


def stats(state: ChatState, _: str) -> None:
    """figures of the last turn and of the conversation"""
    session = state.session
    if session.last_stats is None:
        state.say("nothing was said yet")
        return
    state.say_rows(
        [
            *_figures(session.last_stats),
            ("conversation", f"{len(session.messages):,} messages"),
            ("cache", f"{state.tokens:,} tokens, {session.cache_bytes / 2**20:,.1f} MiB"),
        ]
    )


def switch_model(state: ChatState, argument: str) -> None:
    """NAME: go on with another model; alone: say which this is"""
    if not argument:
        state.say(f"{state.model} · {state.room_shown}")
        return
    before = state.engine
    from mlx_qwen3.checkpoint import load_config, resolve

    load_config(resolve(argument))  # raises before anything is changed
    # Two large models may not fit beside each other, so the first goes before the second comes.
    before.close()
    try:
        engine = open_engine(argument, **before.options)
    except BaseException:
        state.use(open_engine(before.name, **before.options))
        raise
    state.use(engine)
    state.model = argument
    state.say(f"{argument} · {state.room_shown}")


def tools(state: ChatState, argument: str) -> None:
    """on, off: offer get_time and calculator; forget NAME: ask again; alone: list what is offered"""
    if argument in ("on", "off"):
        state.tools.builtin.enabled = argument == "on"
    elif argument.split()[:1] == ["forget"]:
        _forget(state, argument.removeprefix("forget").strip())
    elif argument:
        raise MessageError("/tools takes on, off, or forget NAME to be asked again")
    state.say_rows(
        (name, _first_line(offered.description), "always allowed" * state.tools.approvals.is_allowed(offered))
        for name, offered in state.tools.toolbox.tools.items()
    )
    if not state.tools.toolbox.names:
        state.say("no tools are offered; /tools on offers get_time and calculator")


def mcp(state: ChatState, argument: str) -> None:
    """alone: the servers; prompts, resources: what they offer; restart, prompt and read NAME ..."""
    from mlx_qwen3.cli.chat.commands.mcp import run_mcp_command

    run_mcp_command(state, argument)


def _forget(state: ChatState, name: str) -> None:
    """Take back the permission of the tool `name`, as /tools lists it or by its key; of all for ""."""
    offered, approvals = state.tools.toolbox.tools, state.tools.approvals
    key = offered[name].key if name in offered else name
    is_known = not key or key in approvals.allowed()
    approvals.forget(key or None)  # in any case: one never allowed may have been shown
    if not is_known:
        known = ", ".join(approvals.allowed()) or "none"
        raise MessageError(f"there is no permission for {name}; there are: {known}")


def _keep(state: ChatState) -> None:
    session = state.session
    try:
        remember(
            model=state.model,
            thinking=session.thinking,
            thinking_budget=session.thinking_budget,
            sampling=session.sampling_values or None,
        )
    except OSError as error:
        raise MessageError(f"the settings cannot be kept: {error.strerror or error}") from None
    state.say("later chats start with this model, this mode and this sampling; /set reset undoes the last")


def _figures(stats: Stats) -> list[tuple[str, str]]:
    reading = stats.prompt_tokens_per_second  # 0 where all was read before
    return [
        ("prompt", f"{stats.prompt_tokens:,} tokens, {stats.cached_tokens:,} of them cached"),
        *([("read at", f"{reading:,.1f} tokens/s")] if reading else []),
        ("first token", f"after {stats.ttft:.2f} s"),
        ("thinking", f"{stats.thinking_tokens:,} tokens"),
        ("answer", f"{stats.answer_tokens:,} tokens"),
        ("written at", f"{stats.tokens_per_second:,.1f} tokens/s"),
        ("guessed ahead", f"{stats.drafted_tokens:,} tokens, {stats.accepted_tokens:,} of them right"),
        ("passes", f"{stats.passes_per_token:.2f} of the model for a token"),
        ("peak memory", f"{stats.peak_memory / 2**20:,.0f} MiB"),
        ("ended by", stats.finish_reason),
    ]


def _first_line(text: str) -> str:
    return next(iter(printable(text).strip().splitlines()), "")


def _number(name: str, value: str) -> int | float:
    with suppress(ValueError):
        return int(value)
    try:
        return float(value)
    except ValueError:
        raise SamplingError(f"/set {name} needs a number, not {value!r}") from None
