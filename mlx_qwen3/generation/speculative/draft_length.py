"""How many tokens a speculation should draft: as many as pay, and none where none do."""

from __future__ import annotations

# Lengths of drafts: few, as a pass over so many rows may be compiled for each. With 7, Metal would store all
# scores in models of more than 4 query heads a key head; a pass over 9 rows takes its fused kernel.
LENGTHS = (1, 3, 8, 15)
# What is assumed before anything was drafted: 1 of 2 tokens accepted, each a tenth of a pass.
ACCEPTED, TRIED = 1.0, 2.0
SHARE_OF_PASS = 0.1
# A draft must promise this much more than plain passes.
WORTH = 1.1
# No token drafted is taken to add less than this share of a pass: times are not that exact.
LEAST_SHARE = 0.03
# How much of the past each token tried fades by.
FADE = 0.95
# After a draft that did not pay, this many tokens go by before the next try; twice as many each time.
SHORTEST_REST, LONGEST_REST = 8, 256
# So many rounds with a draft in a row, then one without, to know what that takes by now.
ROUNDS = 64


class Pace:
    """Finds the length of drafts from what was accepted and the seconds it took.

    Where each token of a draft is accepted with probability a, a pass over k of them gives
    1 + a + ... + a^k tokens (https://arxiv.org/abs/2211.17192, section 3.1) for the time of a plain
    pass and k times what a token of the draft adds to it. The k of the best rate is the one to use.

    longest: the most tokens of a draft.
    """

    def __init__(self, longest: int):
        self.longest = longest
        self._accepted, self._tried = ACCEPTED, TRIED
        self._plain: float | None = None  # seconds of a pass without a draft
        self._extra: float | None = None  # seconds that each token drafted adds
        self._is_plain = False  # the latest pass was one without a draft
        self._timed: set[int] = set()  # lengths that were drafted before
        self._rounds = 0  # with a draft, since the last without
        self._rest, self._next_rest = 0, SHORTEST_REST
        self._length = 0

    def length(self) -> int:
        """How many tokens to draft now."""
        return self._length

    def learn(self, drafted: int, accepted: int, seconds: float) -> None:
        """A pass over `drafted` tokens, of which `accepted` came true, took `seconds`, drafting included."""
        if drafted:
            self._learn_drafted(drafted, accepted, seconds)
        else:
            self._learn_plain(seconds)
            self._wait()
        if self._plain is None or self._rest or self._rounds >= ROUNDS:
            self._length = 0
        else:
            self._length = self._best() or min(LENGTHS[0], self.longest)

    def _learn_plain(self, seconds: float) -> None:
        # After a draft, or at first, a pass is started late or compiled.
        if self._is_plain:
            self._plain, self._rounds = blend(self._plain, seconds), 0
        self._is_plain = True

    def _learn_drafted(self, drafted: int, accepted: int, seconds: float) -> None:
        self._is_plain = False
        self._rounds += 1
        tried = min(accepted + 1, drafted)  # after the first that was rejected none has a chance
        faded = FADE**tried
        self._accepted = faded * self._accepted + accepted
        self._tried = faded * self._tried + tried
        # The first pass of a length may have been compiled for it.
        if self._plain is not None and drafted in self._timed:
            self._extra = blend(self._extra, max(0.0, seconds - self._plain) / drafted)
        self._timed.add(drafted)
        if self._best():
            self._next_rest = SHORTEST_REST
        else:
            self._rest, self._next_rest = self._next_rest, min(2 * self._next_rest, LONGEST_REST)

    def _wait(self) -> None:
        """One token less to rest for; what was learned before a rest counts half."""
        if self._rest:
            self._rest -= 1
            if not self._rest:
                self._accepted, self._tried = self._accepted / 2, self._tried / 2

    @property
    def acceptance(self) -> float:
        """The share of late of drafted tokens that were accepted, of those that had a chance."""
        return self._accepted / self._tried

    def _best(self) -> int:
        """The length with the best rate; 0 where a plain pass is."""
        share = SHARE_OF_PASS
        if self._plain and self._extra is not None:
            share = max(LEAST_SHARE, self._extra / self._plain)
        best, best_rate = 0, WORTH
        for length in LENGTHS:
            rate = expected(self.acceptance, length) / (1 + length * share)
            if length <= self.longest and rate > best_rate:
                best, best_rate = length, rate
        return best


def expected(acceptance: float, length: int) -> float:
    """The tokens that a pass over a draft gives on average, its own included."""
    return length + 1.0 if acceptance >= 1 else (1 - acceptance ** (length + 1)) / (1 - acceptance)


def blend(old: float | None, new: float) -> float:
    """A running mean that follows `new`, though not far: what took long was often other work."""
    return new if old is None else old + 0.2 * (min(new, 3 * old) - old)
