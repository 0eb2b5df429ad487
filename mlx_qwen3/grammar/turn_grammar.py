"""Where in a turn a grammar holds."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from enum import Enum, auto
from functools import cached_property
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from mlx_qwen3.events import FinishReason
from mlx_qwen3.grammar.matcher import Matcher, Vocabulary, vocabulary
from mlx_qwen3.parsing.sections import CodeTracker
from mlx_qwen3.tokenizer import Tokenizer

SPARE_TOKENS = 16  # beyond what the shortest way to the end takes, and took at most
LOOKS = 4  # after this part of the tokens to spare, it is asked again how many the end takes
ANSWER_TOKENS = 64  # that thinking leaves for the answer, beyond twice that


class Phase(Enum):
    """OPENING: nothing was said. FREE: an answer of any kind. BOUND: the grammar holds. OVER: it ended."""

    OPENING = auto()
    THINKING = auto()
    FREE = auto()
    BOUND = auto()
    OVER = auto()


class _Watch(NamedTuple):
    """What is known of the way to the end. hurried_by: why it was taken. look_again_at: how many tokens are
    left when it is to be asked again how long it is. most_needed: the longest it was."""

    hurried_by: FinishReason | None
    look_again_at: int
    most_needed: int


class _Step(NamedTuple):
    """A token taken, and what was before it."""

    token: int
    phase: Phase
    matcher: Matcher | None
    watch: _Watch
    was_matched: bool


class TurnGrammar:
    """The constraint of one turn. Made by `constrain`.

    With a schema, the whole answer is bound, and a turn cannot end before it is complete. Without one,
    what stands inside of `<tool_call>` is. Thinking is free; with a schema it cannot end the turn.

    limit: how many tokens the turn may have.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, rules: str, binds_answer: bool, phase: Phase):
        self.limit = 2**31
        self._tokenizer, self._vocab_size, self._rules = tokenizer, vocab_size, rules
        self._binds_answer = binds_answer
        self._phase = phase if binds_answer or phase is not Phase.BOUND else Phase.FREE
        self._vocabulary: Future[Vocabulary] = vocabulary(tokenizer)
        self._matcher: Matcher | None = None
        self._steps: list[_Step] = []
        self._forced = 0
        self._has_thought_enough = False
        self._watch = _Watch(None, self.limit, 0)

    # What Constraint asks for

    def mask(self) -> mx.array | None:
        """True (V,) where a token may come next; None while every token may."""
        if self._phase is Phase.BOUND:
            return self._unpack(self._matcher_bits())
        if not self._binds_answer or self._phase is Phase.OVER:
            return None
        if self._phase is Phase.THINKING:
            return self._thinking_mask
        bits = self._current().bits().copy()
        start = self._tokenizer.think_start_id
        assert start is not None  # a turn opens with thinking only where there is a token for it
        bits[start // 8] |= 1 << start % 8
        return self._unpack(bits)

    def accept(self, token: int) -> None:
        """`token` was taken."""
        phase, matcher, watch = self._phase, self._matcher, self._watch
        was_matched = self._follow(token)
        self._steps.append(_Step(token, phase, matcher, watch, was_matched))

    def rollback(self, count: int) -> None:
        """Take the latest `count` accepted tokens back."""
        for _ in range(count):
            step = self._steps.pop()
            if step.was_matched:
                self._current().rollback(1)
            self._phase, self._matcher, self._watch = step.phase, step.matcher, step.watch

    # What the turn asks for

    def force(self, tokens: Sequence[int]) -> None:
        """`tokens` were said in the model's place."""
        for token in tokens:
            self.accept(token)
        self._forced += len(tokens)

    def hurry(self, reason: FinishReason) -> bool:
        """Lead what is being said to its end, because of `reason`; False if nothing is bound, or no more
        can be done about it."""
        if not self._binds_answer:
            return False
        if self._phase is Phase.THINKING:
            was_new, self._has_thought_enough = not self._has_thought_enough, True
        else:
            was_new, self._watch = self.hurried_by is None, self._watch._replace(hurried_by=reason)
        return was_new

    @property
    def hurried_by(self) -> FinishReason | None:
        """Why the answer was led to its end, if it was."""
        return self._watch.hurried_by

    @property
    def must_answer(self) -> bool:
        """Whether thinking must end now, so that an answer can follow."""
        if not self._binds_answer or self._phase is not Phase.THINKING:
            return False
        if not self._watch.most_needed:
            self._watch = self._watch._replace(most_needed=max(1, self._current().tokens_to_end()))
        return self._has_thought_enough or self._left <= 2 * self._watch.most_needed + ANSWER_TOKENS

    # Inside

    @property
    def _left(self) -> int:
        return self.limit - (len(self._steps) - self._forced)

    def _current(self) -> Matcher:
        if self._matcher is None:
            self._matcher = self._vocabulary.result().matcher(self._rules)
        return self._matcher

    def _follow(self, token: int) -> bool:
        """Go on by `token`; whether the matcher took it."""
        ids = self._tokenizer
        match self._phase:
            case Phase.OPENING | Phase.FREE if token == ids.think_start_id:
                self._phase = Phase.THINKING
            case Phase.THINKING if token == ids.think_end_id:
                self._phase = Phase.BOUND if self._binds_answer else Phase.FREE
            case Phase.FREE if token == ids.tool_call_start_id and self._opens_call():
                self._phase, self._matcher = Phase.BOUND, None
            case Phase.OPENING:
                self._phase = Phase.BOUND if self._binds_answer else Phase.FREE
                return self._follow(token)
            case Phase.BOUND if token in ids.eos_token_ids:
                self._phase = Phase.OVER
            case Phase.BOUND:
                self._current().accept(token)
                if token == ids.tool_call_end_id and not self._binds_answer:
                    self._phase = Phase.FREE
                return True
        return False

    def _opens_call(self) -> bool:
        """Whether `<tool_call>`, coming now, opens a call and is no mention of one, as the parser sees it."""
        said = []
        for step in reversed(self._steps):
            if step.phase not in (Phase.FREE, Phase.OPENING):
                break
            said.append(step.token)
        code = CodeTracker()
        for char in self._tokenizer.decode(reversed(said)):
            code.add(char)
        return code.at_line_start and not code.in_code

    def _matcher_bits(self) -> Any:
        matcher = self._current()
        if self._binds_answer and self.hurried_by is None and self._left <= self._watch.look_again_at:
            self._look_ahead(matcher)
        return matcher.ending_bits() if self.hurried_by else matcher.bits()

    def _look_ahead(self, matcher: Matcher) -> None:
        """Hurry while there is room for the end, and for what may be begun before it is looked again."""
        needed = matcher.tokens_to_end()
        most_needed = max(self._watch.most_needed, needed)
        spare = self._left - needed - most_needed - SPARE_TOKENS
        look_again_at = self._left - max(LOOKS, spare // LOOKS)
        self._watch = _Watch(None if spare > 0 else "length", look_again_at, most_needed)

    @cached_property
    def _thinking_mask(self) -> mx.array:
        """Everything but what ends the turn."""
        ends = [*self._tokenizer.eos_token_ids, self._tokenizer.control_tokens["<|im_start|>"]]
        flags = np.ones(self._vocab_size, bool)
        flags[ends] = False
        return mx.array(flags)

    def _unpack(self, bits: Any) -> mx.array:
        flags = np.zeros(self._vocab_size, bool)
        count = min(self._vocab_size, 8 * len(bits))
        flags[:count] = np.unpackbits(bits, count=count, bitorder="little")
        return mx.array(flags)
