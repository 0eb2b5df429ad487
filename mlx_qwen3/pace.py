"""How many tokens a speculation should draft: as many as pay, and none where none do."""

from __future__ import annotations

# What is assumed before anything was drafted: 2 of 3 tokens accepted, each a tenth of a pass.
ACCEPTED, TRIED = 2.0, 3.0
SHARE_OF_PASS = 0.1
# How much of the past each token tried fades by.
FADE = 0.95
# After a draft that did not pay, this many tokens go by before the next try; twice as many each time.
SHORTEST_REST, LONGEST_REST = 8, 256
# A try after a rest is this long.
TRIAL = 2
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
            self._plain = blend(self._plain, seconds)
            self._rounds = 0
            self._wait()
        if self._rest or self._rounds >= ROUNDS:
            self._length = 0
        else:
            self._length = self._best() or min(TRIAL, self.longest)

    def _learn_drafted(self, drafted: int, accepted: int, seconds: float) -> None:
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
            share = self._extra / self._plain
        best, best_rate, tokens = 0, 1.0, 1.0
        for length in range(1, self.longest + 1):
            tokens += self.acceptance**length
            rate = tokens / (1 + length * share)
            if rate > best_rate:
                best, best_rate = length, rate
        return best


def blend(old: float | None, new: float) -> float:
    """A running mean that follows `new`, downwards sooner: what took longer was often other work."""
    if old is None:
        return new
    return old + (0.3 if new < old else 0.1) * (min(new, 3 * old) - old)
