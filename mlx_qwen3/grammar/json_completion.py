"""Completes JSON soonest: which of the allowed tokens close the value fastest.

If the model runs out of tokens, or repeats itself inside a string, it is steered to the end of the answer, so
that the JSON is complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

PackedMask = NDArray[np.uint8]
"""A set of tokens: one bit a token, the lowest bit of a byte first."""

OUTSIDE, INSIDE, ESCAPED = range(3)
"""State of a JSON text at its end: outside strings, inside one, after a backslash in one."""

_STRING_END = re.compile(rb'"[}\]]*')
_BRACKETS = re.compile(rb"[}\]]+")
_CLOSING_BRACKETS, _SEPARATORS = {b"}", b"]"}, {b",", b":"}
_OPENING = re.compile(rb"[\[{\s,]")
_UNICODE_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u")


def json_state(state: int, text: bytes) -> int:
    """The state after `text`, which begins in `state`."""
    for byte in text:
        if state == ESCAPED:
            state = INSIDE
        elif byte == 0x22:  # a quote
            state = INSIDE if state == OUTSIDE else OUTSIDE
        elif byte == 0x5C and state == INSIDE:  # a backslash
            state = ESCAPED
    return state


class ClosingTokens:
    r"""The tokens of a vocabulary that close JSON values, by state.

    Attributes:
        ending: The tokens that end the value, or the string.
        probes: The ASCII characters after which the value may be allowed to end.
        unicode_escapes: The tokens that begin a `\uXXXX`.
    """

    def __init__(self, token_bytes: Sequence[bytes], special_ids: Collection[int], end_id: int):
        def mask(matches: Callable[[bytes], object], and_end: bool = False) -> PackedMask:
            flags = [bool(matches(text)) for text in token_bytes]
            for id_ in special_ids:
                flags[id_] = and_end and id_ == end_id
            # llguidance pads its masks to a multiple of 32 bits and may add a word: be at least as long.
            return np.packbits(np.pad(flags, (0, 64)), bitorder="little")

        # The first byte is compared before the pattern: there are 150,000 tokens.
        closing = mask(lambda text: text[:1] in _CLOSING_BRACKETS and _BRACKETS.fullmatch(text), and_end=True)
        separating = mask(_SEPARATORS.__contains__)
        string_end = mask(lambda text: text[:1] == b'"' and _STRING_END.fullmatch(text))
        not_opening = mask(lambda text: not _OPENING.search(text))
        single = mask(lambda text: len(text) == 1 and b" " <= text <= b"~" and text != b"\\")
        nothing = np.zeros_like(closing)
        self._preferred = {OUTSIDE: [closing, separating, not_opening], INSIDE: [string_end], ESCAPED: []}
        self.ending = {OUTSIDE: closing | separating, INSIDE: string_end, ESCAPED: nothing}
        self.probes = {OUTSIDE: single & not_opening, INSIDE: single, ESCAPED: nothing}
        begins_escape = mask(lambda text: b"\\u" in text and _UNICODE_ESCAPE.search(text))
        continues_escape = mask(lambda text: text[:1] == b"u")
        self.unicode_escapes = {OUTSIDE: begins_escape, INSIDE: begins_escape, ESCAPED: continues_escape}

    def soonest(self, allowed: PackedMask, state: int) -> PackedMask:
        """The tokens of `allowed` that end the value soonest; all of them if none is known to."""
        for preferred in self._preferred[state]:
            tokens = intersect(allowed, preferred)
            if tokens.any():
                return tokens
        return allowed


def intersect(allowed: PackedMask, tokens: PackedMask) -> PackedMask:
    """The tokens in both. `tokens` may be longer than `allowed`."""
    return allowed & tokens[: len(allowed)]
