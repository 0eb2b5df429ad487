"""Collects the events of a turn into its thinking, its answer and its tool calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlx_qwen3.events import AnswerDelta, Event, ThinkingDelta, ToolCall


@dataclass
class CollectedOutput:
    """The text and the tool calls of the events added so far. Events of other kinds change nothing."""

    thinking: str = ""
    answer: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    _is_after_call: bool = field(default=False, init=False, repr=False)

    def add(self, event: Event) -> None:
        """Add the next event of the turn."""
        match event:
            case ThinkingDelta(text):
                self.thinking += text
            case AnswerDelta(text):
                # Text before and after a call are paragraphs of one answer.
                separator = "\n\n" if self.answer and self._is_after_call else ""
                self.answer += separator + text
                self._is_after_call = False
            case ToolCall():
                self.tool_calls.append(event)
                self._is_after_call = True
