"""The line below the prompt: model, thinking mode, context use and speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlx_qwen3.cli.output import printable

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.state import ChatState


def toolbar(state: ChatState, width: int) -> str:
    """The parts that fit into `width` columns; the least important are left out first."""
    size = state.window or state.session.context
    used = min(state.cached_tokens, size)
    parts = [printable(state.model), _mode(state), f"{used / size:.0%} of {size:,} tokens", *_speed(state)]
    for count in range(len(parts), 0, -1):
        if len(line := _joined(parts[:count])) <= width:
            return line
    return ""


def _joined(parts: list[str]) -> str:
    return "  " + " · ".join(parts)


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
