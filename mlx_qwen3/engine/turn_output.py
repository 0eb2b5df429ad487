"""Turns the tokens of one turn into events, enforces the thinking budget, and detects the end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mlx_qwen3.engine.request import TurnRequest
from mlx_qwen3.events import AnswerDelta, Event, FinishReason, ThinkingDelta, ThinkingDone, ToolCall
from mlx_qwen3.generation.stopping import StopConditions
from mlx_qwen3.grammar import TurnGrammar
from mlx_qwen3.parsing import CollectedOutput, StreamParser
from mlx_qwen3.parsing.stop_strings import StopStrings
from mlx_qwen3.tokenizer import Tokenizer

# How Qwen3 was trained to end its thinking early (technical report, https://arxiv.org/abs/2505.09388,
# section 4.3; blank lines as in its documentation).
EARLY_END = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking "
    "directly now.\n"
)


class TurnOutput:
    """The output of one turn, token by token.

    After `push`, `finish_reason` says whether the turn is over, and `forced` which ids to feed in place of
    the model's next token.
    """

    def __init__(
        self, tokenizer: Tokenizer, request: TurnRequest, limit: int, grammar: TurnGrammar | None = None
    ):
        """limit: the most tokens to generate. grammar: what constrains the output."""
        self.collected = CollectedOutput()
        self.finish_reason: FinishReason | None = None
        self.stop_string: str | None = None
        self.answer_tokens = 0
        self._thinking_tokens = 0
        self._thinking_since: float | None = None  # its first token
        self._must_stop_thinking = False
        self._tokenizer, self._budget = tokenizer, request.thinking_budget
        self._is_thinking = tokenizer.think_block(request.prompt_ids) == "open"
        self._parser = StreamParser(
            special_tokens=tokenizer.control_tokens.keys(),
            thinking=self._is_thinking,
            tool_format=tokenizer.template.tool_format if request.tool_schemas else None,
            tool_schemas=request.tool_schemas,
        )
        self._text = tokenizer.stream()
        self._stops = StopStrings(request.params.stop)
        self._one_call = request.one_call
        ends = {*tokenizer.eos_token_ids, tokenizer.control_tokens["<|im_start|>"]}
        self._conditions = StopConditions(ends, limit)
        self._grammar = grammar
        if grammar is not None:
            grammar.limit = limit
        self._special_names = {id_: name for name, id_ in tokenizer.control_tokens.items()}
        self._forced: list[int] | None = None

    @property
    def generated(self) -> int:
        """Tokens generated, the one that ended the turn included."""
        return self._conditions.generated

    @property
    def thinking_tokens(self) -> int:
        """Tokens of thinking; the blank line of an empty think block does not count."""
        return self._thinking_tokens if self.collected.thinking else 0

    def start(self) -> list[Event]:
        """Events before the first token: the end of a think block that the prompt opened, where the budget
        is 0."""
        return self._enforce_budget()

    def push(self, token: int) -> list[Event]:
        """Add a generated token; sets `finish_reason` if it was the last."""
        reason = self._conditions.push(token)
        if reason == "loop" and self._continues_after_loop():
            reason = None
        if reason == "stop" and self._is_thinking and self._tokenizer.think_end_id is not None:
            # The model ended its turn while thinking: close the thinking, so that an answer follows.
            self._must_stop_thinking = True
            return self._enforce_budget()
        self.finish_reason = reason
        events = [] if reason == "stop" else self._parse(token)
        events = self._cut_at_stop_string(events)
        if self._one_call and self.finish_reason is None and any(isinstance(e, ToolCall) for e in events):
            self.finish_reason = "stop"
        if self.finish_reason is not None:
            events += self._finish(events)
        self._collect(events)
        self._refine_reason()
        return events if self.finish_reason is not None else events + self._enforce_budget()

    def cancel(self) -> list[Event]:
        """End the turn after the tokens so far."""
        self.finish_reason = "cancelled"
        events = self._finish([])
        self._collect(events)
        return events

    def take_forced(self) -> list[int] | None:
        """The ids to feed in place of the next token, once."""
        forced, self._forced = self._forced, None
        return forced

    def _refine_reason(self) -> None:
        if self.finish_reason == "stop" and self.collected.tool_calls:
            self.finish_reason = "tool_calls"
        elif self.finish_reason == "stop" and self._grammar is not None:
            self.finish_reason = self._grammar.finish_reason or "stop"

    def _continues_after_loop(self) -> bool:
        """Whether to continue after a repetition loop: thinking is closed so that an answer can follow, and
        constrained output is steered to a valid end."""
        if self._grammar is not None and self._grammar.finish_early("loop"):
            self._conditions.restart_loop_detection()
            return True
        if self._is_thinking and not self._must_stop_thinking:
            self._must_stop_thinking = True
            return True
        return False

    def _parse(self, token: int) -> list[Event]:
        name = self._special_names.get(token)
        if name is None:
            if self._is_thinking:
                if self._thinking_since is None:
                    self._thinking_since = time.perf_counter()
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

    def _finish(self, latest: Sequence[Event]) -> list[Event]:
        """What was held back, at the end of the turn. latest: events that were not collected yet."""
        events: list[Event] = []
        if self.stop_string is None:
            events = self._parser.push_text(self._text.finish()) + self._parser.finish()
            events = self._cut_at_stop_string(events)
            if held := self._stops.finish():
                events.append(AnswerDelta(held))
        if self._is_thinking:
            events += self._thinking_done([*latest, *events])
        return events

    def _cut_at_stop_string(self, events: list[Event]) -> list[Event]:
        """`events` up to a stop string in the answer, which ends the turn."""
        if not self._stops.may_find:
            return events
        shown: list[Event] = []
        for event in events:
            if not isinstance(event, AnswerDelta):
                if held := self._stops.finish():
                    shown.append(AnswerDelta(held))
                shown.append(event)
                continue
            if text := self._stops.push(event.text):
                shown.append(AnswerDelta(text))
            if self._stops.found is not None:
                self.stop_string, self.finish_reason = self._stops.found, "stop"
                break
        return shown

    def _thinking_done(self, latest: Sequence[Event]) -> list[Event]:
        """The thinking has ended. latest: events not collected yet, which may hold its first text."""
        self._is_thinking = False
        if not self.collected.thinking and not any(isinstance(event, ThinkingDelta) for event in latest):
            return []
        # None where the budget ended the thinking before its first token.
        seconds = 0.0 if self._thinking_since is None else time.perf_counter() - self._thinking_since
        return [ThinkingDone(self._thinking_tokens, seconds)]

    def _enforce_budget(self) -> list[Event]:
        """End the thinking if it has to end now: the events, and `forced` ids to feed."""
        if not self._thinking_must_end():
            return []
        events = self._parser.push_text(self._text.finish() + EARLY_END)
        events += self._parser.push_special_token("</think>")
        events += self._thinking_done(events)
        self._collect(events)
        self._conditions.restart_loop_detection()
        end = self._tokenizer.think_end_id
        assert end is not None  # a model that thinks has the token
        self._forced = [*self._tokenizer.encode(EARLY_END), end, *self._tokenizer.encode("\n\n")]
        if self._grammar is not None:
            self._grammar.force(self._forced)
        return events

    def _thinking_must_end(self) -> bool:
        budget = self._budget
        is_spent = budget is not None and self._thinking_tokens >= budget
        if self._is_thinking and (self._must_stop_thinking or is_spent):
            return True
        return self._grammar is not None and self._grammar.must_end_thinking

    def _collect(self, events: Sequence[Event]) -> None:
        for event in events:
            self.collected.add(event)


class CompletionOutput:
    """The output of a raw completion, token by token: all of it is answer."""

    def __init__(self, tokenizer: Tokenizer, request: TurnRequest, limit: int):
        """limit: the most tokens to generate."""
        self.finish_reason: FinishReason | None = None
        self.stop_string: str | None = None
        self.thinking_tokens = 0
        self._conditions = StopConditions(tokenizer.eos_token_ids, limit)
        self._text = tokenizer.stream()
        self._stops = StopStrings(request.params.stop)

    @property
    def generated(self) -> int:
        """Tokens generated."""
        return self._conditions.generated

    @property
    def answer_tokens(self) -> int:
        return self.generated

    def start(self) -> list[Event]:
        """Nothing comes before the first token."""
        return []

    def push(self, token: int) -> list[Event]:
        """Add a generated token; sets `finish_reason` if it was the last."""
        self.finish_reason = self._conditions.push(token)
        text = "" if self.finish_reason == "stop" else self._text.push(token)
        if self.finish_reason is not None:
            text += self._text.finish()
        text = self._stops.push(text)
        if self._stops.found is not None:
            self.stop_string, self.finish_reason = self._stops.found, "stop"
        elif self.finish_reason is not None:
            text += self._stops.finish()
        return [AnswerDelta(text)] if text else []

    def cancel(self) -> list[Event]:
        """End the completion after the tokens so far."""
        self.finish_reason = "cancelled"
        text = self._stops.push(self._text.finish()) + self._stops.finish()
        return [AnswerDelta(text)] if text else []

    def take_forced(self) -> list[int] | None:
        """Nothing is ever forced."""
        return None
