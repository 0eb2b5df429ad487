"""What a turn's events add up to."""

from __future__ import annotations

from mlx_qwen3.events import (
    AnswerDelta,
    Event,
    PromptProgress,
    ThinkingDelta,
    ThinkingDone,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)
from mlx_qwen3.parsing.collected import CollectedOutput

CALL = ToolCall(0, "f", {}, "{}")


def collected(*events: Event) -> CollectedOutput:
    output = CollectedOutput()
    for event in events:
        output.add(event)
    return output


def test_deltas_are_joined_and_calls_are_listed() -> None:
    output = collected(
        PromptProgress(1, 2, 0),
        ThinkingDelta("think"),
        ThinkingDelta("ing"),
        ThinkingDone(2, 0.1),
        AnswerDelta("ans"),
        AnswerDelta("wer"),
        ToolCallStart(0, "f"),
        ToolCallDelta(0, "{}"),
        CALL,
    )
    assert (output.thinking, output.answer, output.tool_calls) == ("thinking", "answer", [CALL])


def test_text_before_and_after_a_call_are_two_paragraphs() -> None:
    first, second = CALL, ToolCall(1, "f", {}, "{}")
    output = collected(AnswerDelta("One"), first, second, AnswerDelta("tw"), AnswerDelta("o"))
    assert output.answer == "One\n\ntwo"
    assert output.tool_calls == [first, second]


def test_an_answer_that_begins_after_a_call_has_no_blank_line_before_it() -> None:
    assert collected(CALL, AnswerDelta("done")).answer == "done"
    assert collected() == CollectedOutput("", "", [])
