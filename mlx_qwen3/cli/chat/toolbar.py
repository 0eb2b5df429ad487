"""The line below the prompt: model, thinking mode, context use, memory and speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlx_qwen3.cli.output import printable

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.state import ChatState


def toolbar(state: ChatState, width: int) -> str:
    """The parts that fit into `width` columns; the least important are left out first."""
    size = state.window or state.session.context
    used = min(state.cached_tokens, size)
    context = f"context {used:,} of {size:,} ({used / size:.0%})"
    memory = f"{state.session.cache_info.nbytes / 2**20:,.0f} MiB"
    model = printable(state.model)
    parts = [model, _mode(state), context, memory, *_speed(state)]
    short = [model, _mode(state), f"{used / size:.0%} of {size:,}"]
    choices = [parts[:count] for count in range(len(parts), 2, -1)] + [short, short[:2]]
    for line in map(_joined, choices):
        if len(line) <= width:
            return line
    return _joined(short[:1])


def _joined(parts: list[str]) -> str:
    return " " + " · ".join(parts)


def _mode(state: ChatState) -> str:
    session = state.session
    if not session.may_think or session.thinking_budget == 0:
        return "no thinking"
    if session.thinking_budget is None:
        return "thinking"
    return f"thinking up to {session.thinking_budget:,}"


def _speed(state: ChatState) -> list[str]:
    stats = state.session.last_stats
    return [f"{stats.tokens_per_second:.1f} tokens/s"] if stats else []
