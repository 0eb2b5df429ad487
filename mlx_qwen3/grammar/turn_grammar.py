"""Applies a grammar to the parts of a turn that it constrains."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from enum import Enum, auto
from functools import cached_property
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlx_qwen3.errors import SchemaError
from mlx_qwen3.events import FinishReason
from mlx_qwen3.grammar.json_completion import PackedMask
from mlx_qwen3.grammar.matcher import GrammarCompiler, Matcher, compiler_for
from mlx_qwen3.parsing.sections import CodeTracker
from mlx_qwen3.tokenizer import Tokenizer

SPARE_TOKENS = 16  # kept free beyond the shortest end and the longest end seen so far
SPARE_PART = 4  # the end is measured again after this fraction (1/4) of the tokens to spare, or 4 tokens
ANSWER_TOKENS = 64  # thinking leaves this many for the answer, and twice its shortest end
# Tokens that may be chosen already when one is handed out: a whole draft. An answer is steered to its end
# only behind them, so that its text does not depend on speculation or batching.
CHOSEN_AHEAD = 17


class Phase(Enum):
    """The phase of a turn.

    OPENING: no token was generated, and thinking may begin. FREE: an answer without a grammar.
    CONSTRAINED: the grammar applies. ENDED: the turn has ended.
    """

    OPENING = auto()
    THINKING = auto()
    FREE = auto()
    CONSTRAINED = auto()
    ENDED = auto()


class _Lookahead(NamedTuple):
    """What is known of the end of the answer.

    finish_reason: why the answer is steered to its end; None while it is not. measure_at: the end is measured
    again when this many tokens are left. longest_end: the most tokens that the end took.
    """

    finish_reason: FinishReason | None
    measure_at: int
    longest_end: int


class _AcceptedToken(NamedTuple):
    """An accepted token, and the state before it, for rollback."""

    token: int
    phase: Phase
    matcher: Matcher | None
    lookahead: _Lookahead
    was_matched: bool


class TurnGrammar:
    """The constraint of one turn. `constrain` makes it.

    With a schema, the whole answer is constrained, and the turn cannot end before it is complete; thinking is
    free, but cannot end the turn. Without a schema, only the text inside `<tool_call>` is constrained.

    Attributes:
        limit: The most tokens that the turn may have.
    """

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, rules: str, constrains_answer: bool, phase: Phase
    ):
        self.limit = 2**31
        self._tokenizer, self._vocab_size, self._rules = tokenizer, vocab_size, rules
        self._constrains_answer = constrains_answer
        self._phase = Phase.FREE if phase is Phase.CONSTRAINED and not constrains_answer else phase
        self._compiler: Future[GrammarCompiler] = compiler_for(tokenizer)
        self._matcher: Matcher | None = None
        self._accepted: list[_AcceptedToken] = []
        self._forced = 0
        self._thinking_must_end = False
        self._lookahead = _Lookahead(None, self.limit, 0)
        self._early: tuple[FinishReason, int] | None = None  # why, and from how many tokens left on

    # The `Constraint` protocol of the sampler

    def mask(self) -> mx.array | None:
        """True (V,) for each token that may come next; None if every token may."""
        if self._phase is Phase.CONSTRAINED:
            return self._unpack(self._constrained_mask())
        if not self._constrains_answer or self._phase is Phase.ENDED:
            return None
        if self._phase is Phase.THINKING:
            return self._thinking_mask
        mask = self._current_matcher().mask().copy()
        think_start = self._tokenizer.think_start_id
        assert think_start is not None  # else the turn does not begin in Phase.OPENING
        mask[think_start // 8] |= 1 << think_start % 8
        return self._unpack(mask)

    def accept(self, token: int) -> None:
        """Advance by `token`."""
        phase, matcher, lookahead = self._phase, self._matcher, self._lookahead
        was_matched = self._advance(token)
        self._accepted.append(_AcceptedToken(token, phase, matcher, lookahead, was_matched))
        self._measure_if_due()

    def rollback(self, count: int) -> None:
        """Go back by `count` accepted tokens."""
        for _ in range(count):
            accepted = self._accepted.pop()
            if accepted.was_matched:
                self._current_matcher().rollback(1)
            self._phase, self._matcher = accepted.phase, accepted.matcher
            self._lookahead = accepted.lookahead

    # For the turn

    def begin(self, text: str) -> None:
        """Start behind `text`, the beginning of the answer. Raises SchemaError if no answer begins so."""
        tokens = self._tokenizer.encode(text)
        matcher = self._current_matcher()
        if not matcher.may_begin_with(tokens):
            raise SchemaError("the answer to continue does not begin as its schema demands")
        for token in tokens:
            matcher.accept(token)
        self._phase = Phase.CONSTRAINED

    def force(self, tokens: Sequence[int]) -> None:
        """Advance by `tokens` that were inserted into the output. They do not count towards `limit`."""
        for token in tokens:
            self.accept(token)
        self._forced += len(tokens)

    def finish_early(self, reason: FinishReason) -> bool:
        """End the thinking, or steer the answer to its end, because of `reason`.

        Returns False if the answer has no schema, or if this was already done.
        """
        if not self._constrains_answer:
            return False
        if self._phase is Phase.THINKING:
            is_new, self._thinking_must_end = not self._thinking_must_end, True
        else:
            is_new = self.finish_reason is None and self._early is None
            if is_new:
                self._early = reason, self._tokens_left - CHOSEN_AHEAD
        return is_new

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer is steered to its end; None if it is not."""
        if self._early is not None and self._tokens_left <= self._early[1]:
            return self._early[0]
        return self._lookahead.finish_reason

    @property
    def must_end_thinking(self) -> bool:
        """Whether thinking must end now to leave enough tokens for the answer."""
        if not self._constrains_answer or self._phase is not Phase.THINKING:
            return False
        if not self._lookahead.longest_end:
            shortest_answer = self._current_matcher().tokens_to_end()
            self._lookahead = self._lookahead._replace(longest_end=max(1, shortest_answer))
        needed = 2 * self._lookahead.longest_end + ANSWER_TOKENS
        return self._thinking_must_end or self._tokens_left <= needed

    # Inside

    @property
    def _tokens_left(self) -> int:
        return self.limit - (len(self._accepted) - self._forced)

    def _current_matcher(self) -> Matcher:
        if self._matcher is None:
            self._matcher = self._compiler.result().matcher(self._rules)
        return self._matcher

    def _advance(self, token: int) -> bool:
        """Change the phase for `token`; return whether the matcher took it."""
        ids = self._tokenizer
        match self._phase:
            case Phase.OPENING | Phase.FREE if token == ids.think_start_id:
                self._phase = Phase.THINKING
            case Phase.THINKING if token == ids.think_end_id:
                self._phase = Phase.CONSTRAINED if self._constrains_answer else Phase.FREE
            case Phase.FREE if token == ids.tool_call_start_id and self._opens_call():
                self._phase, self._matcher = Phase.CONSTRAINED, None
            case Phase.OPENING:
                self._phase = Phase.CONSTRAINED if self._constrains_answer else Phase.FREE
                return self._advance(token)
            case Phase.CONSTRAINED if token in ids.eos_token_ids:
                self._phase = Phase.ENDED
            case Phase.CONSTRAINED:
                self._current_matcher().accept(token)
                if token == ids.tool_call_end_id and not self._constrains_answer:
                    self._phase = Phase.FREE
                return True
        return False

    def _opens_call(self) -> bool:
        """Whether a `<tool_call>` that comes now opens a call by the rules of the stream parser."""
        answer = []
        for accepted in reversed(self._accepted):
            if accepted.phase not in (Phase.FREE, Phase.OPENING):
                break
            answer.append(accepted.token)
        code = CodeTracker()
        for char in self._tokenizer.decode(reversed(answer)):
            code.add(char)
        return code.at_line_start and not code.in_code

    def _constrained_mask(self) -> PackedMask:
        if not self._accepted:
            self._measure_if_due()
        matcher = self._current_matcher()
        return matcher.closing_mask() if self.finish_reason else matcher.mask()

    def _measure_if_due(self) -> None:
        """Once per place of the output, whether or not a mask is computed there, as with drafts."""
        if self._phase is not Phase.CONSTRAINED or not self._constrains_answer:
            return
        if self.finish_reason is None and self._tokens_left <= self._lookahead.measure_at:
            self._measure_end(self._current_matcher())

    def _measure_end(self, matcher: Matcher) -> None:
        """Measure the shortest end; steer the answer to it if the tokens left hardly suffice.

        The answer may begin new values before the next measurement, so as many tokens as the longest end
        took are kept free besides.
        """
        shortest_end = matcher.tokens_to_end()
        longest_end = max(self._lookahead.longest_end, shortest_end)
        spare = self._tokens_left - shortest_end - longest_end - SPARE_TOKENS
        measure_at = self._tokens_left - max(SPARE_PART, spare // SPARE_PART)
        self._lookahead = _Lookahead(None if spare > 0 else "length", measure_at, longest_end)

    @cached_property
    def _thinking_mask(self) -> mx.array:
        """Every token but those that end the turn."""
        ends = [*self._tokenizer.eos_token_ids, self._tokenizer.control_tokens["<|im_start|>"]]
        flags = np.ones(self._vocab_size, bool)
        flags[ends] = False
        return mx.array(flags)

    def _unpack(self, mask: PackedMask) -> mx.array:
        flags = np.zeros(self._vocab_size, bool)
        count = min(self._vocab_size, 8 * len(mask))
        flags[:count] = np.unpackbits(mask, count=count, bitorder="little")
        return mx.array(flags)
