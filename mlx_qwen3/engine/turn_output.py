"""What a turn says, told token by token: thinking, answer and calls, the thinking budget, and the end.

Knows no model: whoever decodes, one text or many, asks it what to make of a token and what to feed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_qwen3.events import AnswerDelta, Event, FinishReason, ThinkingDelta, ThinkingDone, ToolCall
from mlx_qwen3.generation.stopping import Ending
from mlx_qwen3.grammar import TurnGrammar
from mlx_qwen3.parsing import StreamParser
from mlx_qwen3.tokenizer import Tokenizer

# How Qwen3 was trained to end its thinking early (technical report, https://arxiv.org/abs/2505.09388,
# section 4.3; blank lines as in its documentation).
EARLY_END = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking "
    "directly now.\n"
)


class TurnOutput:
    """Afterwards holds what was thought, answered and called.

    prompt_ids: what the model answers. limit: the most tokens it may write. thinking_budget: of them
    for thinking. tool_schemas: the tools offered, name -> JSON schema of its parameters.
    grammar: what the output is held to.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        limit: int,
        thinking_budget: int | None = None,
        tool_schemas: Mapping[str, Mapping[str, Any]] | None = None,
        grammar: TurnGrammar | None = None,
    ):
        self.thinking, self.answer = "", ""
        self.tool_calls: list[ToolCall] = []
        self.finish_reason: FinishReason | None = None
        self.answer_tokens = 0
        self._thinking_tokens = 0
        self._thinking_since = 0.0
        self._is_stuck = False  # thinking goes round in a loop
        self._tokenizer, self._limit, self._thinking_budget = tokenizer, limit, thinking_budget
        self._is_thinking = _opens_thinking(prompt_ids, tokenizer)
        self._parser = StreamParser(
            special_tokens=tokenizer.control_tokens.keys(),
            thinking=self._is_thinking,
            tool_format=tokenizer.template.tool_format if tool_schemas else None,
            tool_schemas=tool_schemas or {},
        )
        self._text = tokenizer.stream()
        ends = {*tokenizer.eos_token_ids, tokenizer.control_tokens["<|im_start|>"]}
        self._ending = Ending(ends, limit)
        self._grammar = grammar
        if grammar is not None:
            grammar.limit = limit
        self._control_names = {id_: name for name, id_ in tokenizer.control_tokens.items()}
        self._called = False  # a call came after the latest word

    @property
    def generated(self) -> int:
        """Tokens the model wrote."""
        return self._ending.generated

    def take(self, token: int, is_cancelled: bool = False) -> list[Event]:
        """Account for one generated token; sets `finish_reason` if it was the last."""
        reason = self._ending.take(token, is_cancelled)
        self.finish_reason = None if reason == "loop" and self._leaves_loop() else reason
        events = [] if self.finish_reason == "stop" else self._parse(token)
        if self.finish_reason is not None:
            events += self._parser.push_text(self._text.finish()) + self._parser.finish()
            if self._is_thinking:
                events += self._thinking_done(events)
        self._collect(events)
        if self.finish_reason == "stop" and self.tool_calls:
            self.finish_reason = "tool_calls"
        elif self.finish_reason == "stop" and self._grammar is not None:
            self.finish_reason = self._grammar.hurried_by or "stop"
        return events

    def _leaves_loop(self) -> bool:
        """Whether the turn goes on though its text goes round in a loop: where that is thinking, which is
        ended, for an answer may be had all the same; and one held to a form ends at the form's end."""
        if self._grammar is not None and self._grammar.hurry("loop"):
            self._ending.forget_loop()
            return True
        if self._is_thinking and not self._is_stuck:
            self._is_stuck = True
            return True
        return False

    def _parse(self, token: int) -> list[Event]:
        name = self._control_names.get(token)
        if name is None:
            if self._is_thinking:
                self._thinking_since = self._thinking_since or time.perf_counter()
                self._thinking_tokens += 1
            else:
                self.answer_tokens += 1
            return self._parser.push_text(self._text.push(token))
        events = self._parser.push_text(self._text.finish()) + self._parser.push_special_token(name)
        if name == "<think>":
            self._is_thinking = True
        elif name == "</think>" and self._is_thinking:
            events += self._thinking_done(events)
        return events

    def _thinking_done(self, latest: Sequence[Event]) -> list[Event]:
        """No more thinking. `latest`: events not collected yet, which may hold the first of it."""
        self._is_thinking = False
        if not self.thinking and not any(isinstance(event, ThinkingDelta) for event in latest):
            return []
        return [ThinkingDone(self._thinking_tokens, time.perf_counter() - self._thinking_since)]

    def budget_is_spent(self) -> bool:
        """Whether the thinking is to be ended now."""
        budget = self._thinking_budget
        if self._is_thinking and (self._is_stuck or (budget is not None and self._thinking_tokens >= budget)):
            return True
        return self._grammar is not None and self._grammar.must_answer

    def end_thinking(self) -> tuple[list[Event], list[int]]:
        """End the model's thinking for it: the events, and the ids to feed in place of its next token."""
        events = self._parser.push_text(self._text.finish() + EARLY_END)
        events += self._parser.push_special_token("</think>")
        events += self._thinking_done(events)
        self._collect(events)
        self._ending.forget_loop()
        end = self._tokenizer.think_end_id
        assert end is not None  # a model that thinks has the token
        ids = [*self._tokenizer.encode(EARLY_END), end, *self._tokenizer.encode("\n\n")]
        if self._grammar is not None:
            self._grammar.force(ids)
        return events, ids

    @property
    def thinking_tokens(self) -> int:
        """Tokens of thinking; the blank line of an empty think block is none."""
        return self._thinking_tokens if self.thinking else 0

    def _collect(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ThinkingDelta):
                self.thinking += event.text
            elif isinstance(event, AnswerDelta):
                # What is said before and after a call are paragraphs of one answer.
                self.answer += ("\n\n" if self.answer and self._called else "") + event.text
                self._called = False
            elif isinstance(event, ToolCall):
                self.tool_calls.append(event)
                self._called = True


def _opens_thinking(prompt_ids: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether the prompt leaves a think block open, as templates of always-thinking models do."""
    for token in reversed(prompt_ids):
        if token == tokenizer.think_start_id:
            return True
        if token in (tokenizer.think_end_id, tokenizer.control_tokens["<|im_start|>"]):
            return False
    return False
