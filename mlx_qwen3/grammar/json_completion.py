"""Bringing JSON to its end: which of the tokens that may come close most.

A model that is running out of tokens, or that goes round in a loop inside a string, is led to the end of
the form, so that what it says is whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]

OUTSIDE, INSIDE, ESCAPED = range(3)
"""Where a JSON text stands: outside of strings, inside one, behind a backslash in one."""

_CLOSES_STRING = re.compile(rb'"[}\]]*')
_CLOSES = re.compile(rb"[}\]]+")
_CLOSING, _SEPARATING = {b"}", b"]"}, {b",", b":"}
_OPENS = re.compile(rb"[\[{\s,]")


def json_state(state: int, text: bytes) -> int:
    """Where a JSON text stands after `text`."""
    for byte in text:
        if state == ESCAPED:
            state = INSIDE
        elif byte == 0x22:
            state = INSIDE if state == OUTSIDE else OUTSIDE
        elif byte == 0x5C and state == INSIDE:
            state = ESCAPED
    return state


class Endings:
    """Kinds of tokens, those that end JSON soonest first."""

    def __init__(self, token_bytes: Sequence[bytes], control_ids: Collection[int], end_id: int):
        def kind(matches: Callable[[bytes], object], also: int | None = None) -> Bits:
            flags = [bool(matches(text)) for text in token_bytes]
            for id_ in control_ids:
                flags[id_] = id_ == also
            # At least as long as llguidance's masks, which are whole words of 32 and may have one to spare.
            return np.packbits(np.pad(flags, (0, 64)), bitorder="little")

        # Looking at the first byte first: 150,000 tokens are looked at.
        closes = kind(lambda text: text[:1] in _CLOSING and _CLOSES.fullmatch(text), also=end_id)
        separates = kind(_SEPARATING.__contains__)
        closes_string = kind(lambda text: text[:1] == b'"' and _CLOSES_STRING.fullmatch(text))
        opens_nothing = kind(lambda text: not _OPENS.search(text))
        nothing = np.zeros_like(closes)
        single = kind(lambda text: len(text) == 1 and b" " <= text <= b"~" and text != b"\\")
        self._kinds = {OUTSIDE: [closes, separates, opens_nothing], INSIDE: [closes_string], ESCAPED: []}
        self.ends = {OUTSIDE: closes | separates, INSIDE: closes_string, ESCAPED: nothing}
        """By state: the tokens that end the value, or the string, there."""
        self.tries = {OUTSIDE: single & opens_nothing, INSIDE: single, ESCAPED: nothing}
        """By state: the ASCII characters that may lead to where it can end."""

    def choose(self, allowed: Bits, state: int) -> Bits:
        """The tokens of `allowed` that end soonest; all of them where no kind does."""
        for kind in self._kinds[state]:
            chosen = both(allowed, kind)
            if chosen.any():
                return chosen
        return allowed


def both(allowed: Bits, kind: Bits) -> Bits:
    """The tokens of a mask that are of a kind."""
    return allowed & kind[: len(allowed)]
