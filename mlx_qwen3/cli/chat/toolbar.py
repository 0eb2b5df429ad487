"""The line below the prompt: model, mode, how full the context is, memory, speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.state import ChatState


def toolbar(state: ChatState, width: int) -> str:
    """As much of it as fits `width` columns; what matters least goes first."""
    used, room = _context(state)
    meter = f"context {used:,} of {room:,} ({used / room:.0%})"
    memory = f"{state.session.cache_bytes / 2**20:,.0f} MiB"
    parts = [state.model, _mode(state), meter, memory, *_speed(state)]
    short = [state.model, _mode(state), f"{used / room:.0%} of {room:,}"]
    lines = [parts[:count] for count in range(len(parts), 2, -1)] + [short, short[:2]]
    return next((line for line in map(_joined, lines) if len(line) <= width), _joined(short[:1]))


def _joined(parts: list[str]) -> str:
    return " " + " · ".join(parts)


def _mode(state: ChatState) -> str:
    session = state.session
    if not session.may_think:
        return "no thinking"
    if session.thinking_budget is None:
        return "thinking"
    budget = f"thinking up to {session.thinking_budget:,}"
    return "no thinking" if session.thinking_budget == 0 else budget


def _context(state: ChatState) -> tuple[int, int]:
    room = state.window or state.session.context
    return min(state.tokens, room), room


def _speed(state: ChatState) -> list[str]:
    stats = state.session.last_stats
    return [f"{stats.tokens_per_second:.1f} tokens/s"] if stats else []
