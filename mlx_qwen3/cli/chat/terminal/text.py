"""What the printers share: the Printer protocol and the notes around a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from mlx_qwen3.events import ContextGrown, Done, Event, MemoryLow

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# Notes for the finish reasons that need one. `stop` and `tool_calls` do not.
FINISH_NOTES = {
    "length": "stopped: out of tokens",
    "cancelled": "stopped",
    "loop": "stopped: the text repeats itself",
}


class Printer(Protocol):
    """Shows the events of turns, one turn after the other. Use it in a `with` block around each turn."""

    finish_reason: str | None
    thoughts: str
    """The thinking of the latest turn."""

    def show(self, event: Event) -> None: ...

    def pause(self) -> None:
        """Stop drawing until the next event, so that other code can use the terminal."""
        ...

    def toggle_thoughts(self) -> bool:
        """While the model thinks, switch between folding its thinking away and leaving it on the screen.

        Returns whether it thinks.
        """
        ...

    def suspend(self, stop: Callable[[], object]) -> None:
        """Call `stop`, which returns when the program goes on after Ctrl-Z; draw nothing meanwhile."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def context_grown_note(event: ContextGrown) -> str:
    """Tells the user that the context was extended."""
    return (
        f"the conversation outgrew its context: positions are scaled by {event.factor:g} (YaRN), for up to "
        f"{event.context:,} tokens; it is read once more"
    )


def turn_note(done: Done, with_figures: bool) -> str:
    """The line after a turn: why it did not end by itself, and the figures if they are wanted."""
    reasons = [FINISH_NOTES[done.finish_reason]] if done.finish_reason in FINISH_NOTES else []
    return " · ".join([*reasons, *(turn_figures(done) if with_figures else [])])


def memory_low_note(event: MemoryLow) -> str:
    """Tells the user that memory is scarce, and what was done about it."""
    if event.action == "parked":
        return f"memory is scarce: {event.nbytes / 1e6:,.0f} MB of idle conversations were moved to disk"
    return "memory is scarce: other answers wait until there is more; closing programs helps"


def turn_figures(done: Done) -> list[str]:
    """The figures of a turn."""
    stats = done.stats
    thinking = f"{stats.thinking_tokens:,} thinking + " if stats.thinking_tokens else ""
    return [
        f"{stats.tokens_per_second:.1f} tokens/s",
        f"first {stats.ttft:.2f} s",
        f"{thinking}{stats.answer_tokens:,} answer",
        f"{stats.prompt_tokens:,} prompt, {stats.cached_tokens:,} cached",
    ]
