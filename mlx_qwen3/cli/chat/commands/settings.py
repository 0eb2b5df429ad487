"""Slash commands for settings of the chat: thinking, sampling, model and tools; and for its figures."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_qwen3.cli.chat.preferences import remember
from mlx_qwen3.cli.chat.text_files import text_or_file
from mlx_qwen3.cli.open_engine import open_engine
from mlx_qwen3.cli.output import printable
from mlx_qwen3.errors import MessageError, SamplingError
from mlx_qwen3.tokenizer.chat_template import Thinking

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.state import ChatState
    from mlx_qwen3.events import Stats

OFF = ("off", "none")
# Sampling parameters that the chat cannot set: they are not numbers, or it would not show their result.
NOT_SETTABLE = ("stop", "logit_bias", "logprobs", "top_logprobs")


def think(state: ChatState, _: str) -> None:
    """think before answering (also a switch inside a message)"""
    if state.engine.tokenizer.template.thinking is Thinking.NEVER:
        raise MessageError(f"{state.model} never thinks")
    state.session.thinking = True
    if state.session.thinking_budget == 0:
        state.session.thinking_budget = None
    state.print_line("thinking is on")


def no_think(state: ChatState, _: str) -> None:
    """answer at once (also a switch inside a message)"""
    if state.engine.tokenizer.template.thinking is Thinking.ALWAYS:
        raise MessageError(f"{state.model} always thinks; /budget 0 makes it answer at once")
    state.session.thinking = False
    state.print_line("thinking is off")


def thoughts(state: ChatState, _: str) -> None:
    """print the latest thinking; Ctrl-O shows and hides it"""
    state.print_line(state.printer.thoughts.strip() or "there was no thinking yet")


def budget(state: ChatState, argument: str) -> None:
    """think for at most N tokens; off: without a limit"""
    if argument and argument not in OFF and not argument.isdecimal():
        raise MessageError(f"/budget takes a number of tokens or off, not {argument!r}")
    if argument:
        state.session.thinking_budget = int(argument) if argument.isdecimal() else None
    tokens = state.session.thinking_budget
    if tokens is None:
        state.print_line("no thinking budget")
    else:
        state.print_line(
            f"thinking stops after {tokens:,} tokens" if tokens else "answers come without thinking"
        )
        if tokens and not state.session.may_think:
            state.print_line("it has no effect while thinking is off; /think switches it on")


def system(state: ChatState, argument: str) -> None:
    """set the system message; alone: show it"""
    conversation = state.session.conversation
    if argument:
        conversation.system = None if argument in OFF else text_or_file(argument)
    if not argument or not conversation.system:
        state.print_line(conversation.system or "no system message")
    else:
        state.print_line("system message set")


def set_value(state: ChatState, argument: str) -> None:
    """sampling: temperature 0.5; reset; keep for later chats; adapter NAME|FOLDER|none"""
    session = state.session
    name, _, value = argument.replace("=", " ").partition(" ")
    match name:
        case "":
            chosen = session.sampling_values
            state.print_rows(
                (key, "not set" if current is None else str(current), "set by you" if key in chosen else "")
                for key, current in asdict(session.params()).items()
                if key not in NOT_SETTABLE
            )
        case "adapter":
            _use_adapter(state, value.strip())
        case _ if name in NOT_SETTABLE:
            raise SamplingError(f"/set cannot change {name}")
        case "reset":
            session.sampling = None
            _remember(sampling=None)
            state.print_line("sampling is as Qwen advises again")
        case "keep":
            _remember(
                model=state.model,
                thinking=session.thinking,
                thinking_budget=session.thinking_budget,
                sampling=session.sampling_values or None,
            )
            state.print_line(
                "later chats start with this model, thinking mode and sampling; "
                "/set reset resets the sampling"
            )
        case _:
            changed = {**session.sampling_values, name: _number(name, value.strip())}
            session.params().with_values(**changed)  # raises before anything changes
            session.sampling = changed
            state.print_line(f"{name} is {changed[name]}")


def _use_adapter(state: ChatState, wanted: str) -> None:
    """Answer with an adapter: its name, the folder of one more, or none; say which one it is."""
    from mlx_qwen3.engine.loading.adapters import NONE

    engine, session = state.engine, state.session
    names = {Path(folder).expanduser().resolve(): name for name, folder in engine.adapter_folders.items()}
    is_name = wanted in (*engine.adapters, NONE)
    if wanted and not is_name and (folder := Path(wanted).expanduser()).is_dir():
        wanted = names.get(folder.resolve()) or engine.load_adapter(folder)
    if wanted:
        session.adapter = wanted
    others = ", ".join(name for name in (*engine.adapters, NONE) if name != session.adapter)
    state.print_line(f"adapter is {session.adapter}" + (f"; others: {others}" if others else ""))


def stats(state: ChatState, _: str) -> None:
    """figures of the last turn and of the conversation"""
    session = state.session
    if session.last_stats is None:
        state.print_line("there are no figures yet")
        return
    state.print_rows(
        [
            *_figures(session.last_stats),
            ("conversation", f"{len(session.messages):,} messages"),
            ("cache", f"{state.cached_tokens:,} tokens, {session.cache_info.nbytes / 2**20:,.1f} MiB"),
        ]
    )


def switch_model(state: ChatState, argument: str) -> None:
    """go on with another model; alone: which one it is"""
    if not argument:
        state.print_line(f"{state.model} · {state.context_label}")
        return
    from mlx_qwen3.checkpoint import load_config, resolve

    before = state.engine
    load_config(resolve(argument))  # raises before anything changes
    # Close the first engine before opening the second: two large models may not fit in memory together.
    before.close()
    try:
        of_other = {"adapter": None, "adapters": None, "revision": None}  # they belong to the other model
        engine = open_engine(argument, **before.options | of_other)
    except BaseException:
        state.switch_engine(open_engine(before.name, **before.options))
        raise
    state.switch_engine(engine)
    state.model = argument
    state.print_line(f"{argument} · {state.context_label}")


def tools(state: ChatState, argument: str) -> None:
    """get_time and calculator; forget NAME: ask again; alone: list"""
    if argument in ("on", "off"):
        state.tools.builtin.enabled = argument == "on"
    elif argument.split()[:1] == ["forget"]:
        _forget(state, argument.removeprefix("forget").strip())
    elif argument:
        raise MessageError("/tools takes on, off, or forget NAME to be asked again")
    is_allowed = state.tools.approvals.is_allowed
    state.print_rows(
        (name, _first_line(tool.description), "always allowed" if is_allowed(tool) else "")
        for name, tool in state.tools.toolbox.tools.items()
    )
    if not state.tools.toolbox.names:
        state.print_line("no tools are offered; /tools on offers get_time and calculator")


def _forget(state: ChatState, name: str) -> None:
    """Take back the permission of a tool, by its name in /tools or its key; of all tools for ""."""
    tools, approvals = state.tools.toolbox.tools, state.tools.approvals
    key = tools[name].key if name in tools else name
    was_allowed = not key or key in approvals.allowed()
    approvals.forget(key or None)  # in any case: it also forgets that a tool was shown
    if not was_allowed:
        allowed = ", ".join(approvals.allowed()) or "none"
        raise MessageError(f"there is no permission for {name}; there are: {allowed}")


def _remember(**preferences: Any) -> None:
    try:
        remember(**preferences)
    except OSError as error:
        raise MessageError(f"the settings cannot be kept: {error.strerror or error}") from None


def _figures(stats: Stats) -> list[tuple[str, str]]:
    prefill_speed = stats.prompt_tokens_per_second  # 0 if the whole prompt was cached
    return [
        ("prompt", f"{stats.prompt_tokens:,} tokens, {stats.cached_tokens:,} of them cached"),
        *([("prefill", f"{prefill_speed:,.1f} tokens/s")] if prefill_speed else []),
        ("first token", f"after {stats.ttft:.2f} s"),
        ("thinking", f"{stats.thinking_tokens:,} tokens"),
        ("answer", f"{stats.answer_tokens:,} tokens"),
        ("decode", f"{stats.tokens_per_second:,.1f} tokens/s"),
        ("drafted", f"{stats.drafted_tokens:,} tokens, {stats.accepted_tokens:,} of them accepted"),
        ("model passes", f"{stats.passes_per_token:.2f} per token"),
        ("peak memory", f"{stats.peak_memory / 2**20:,.0f} MiB"),
        ("finish reason", stats.finish_reason),
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
