"""Keeps text that strangers supply from ever becoming a control token.

A control token is one the chat template alone may write: `<|im_end|>`, `<think>`, `<tool_call>` and the
like. Before a template renders, a *sentinel* (a code point found nowhere in the conversation) is put into
every supplied string wherever it could take part in a control token's spelling. After rendering, the
text is split at the control tokens that are still spelled whole, which only the template can have
written, and the sentinel is taken out of what lies between.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from mlx_qwen3.errors import MessageError

# Unicode noncharacters first: no text should hold one. Then the private-use areas.
_CANDIDATES = (
    range(0xFDD0, 0xFDF0),
    range(0xE000, 0xF900),
    range(0xF0000, 0xFFFFE),
    range(0x100000, 0x10FFFE),
)


class Piece(NamedTuple):
    """A part of a prompt: plain text, or one control token."""

    text: str
    is_control: bool


def choose_sentinel(*texts: str) -> str:
    """A character that `texts` hold neither as itself nor as its JSON escape.

    Raises MessageError when they hold every candidate.
    """
    for code_point in chain(*_CANDIDATES):
        sentinel = chr(code_point)
        if not any(sentinel in text or _escaped(sentinel) in text for text in texts):
            return sentinel
    raise MessageError("the conversation holds every private-use character: remove some of them")


class Guard:
    """Guards supplied values against `control_tokens`, and finds the ones that a template wrote."""

    def __init__(self, control_tokens: Iterable[str]) -> None:
        # A one-character token has no inside to put a sentinel in: it is never recognised in a prompt.
        tokens = sorted((token for token in control_tokens if len(token) > 1), key=len, reverse=True)
        # Longest first makes the leftmost match the longest one, as the tokenizers library matches.
        self._pattern = re.compile("|".join(map(re.escape, tokens)) or r"(?!)")
        self._firsts = {token[0] for token in tokens}
        self._lasts = {token[-1] for token in tokens}
        self._insides = {inside for token in tokens for inside in _insides(token)}

    def protect(self, value: Any, sentinel: str) -> Any:
        """A copy of a JSON-like `value` whose strings, keys included, cannot spell a control token.

        A spelling that takes its first or last character from a supplied string meets the sentinel
        beside it, however the template cuts or joins strings. One that takes only its inside from a
        supplied string (a template writing `<` + key + `>`) meets the sentinel before it. Only a
        template that puts an inside together from several supplied strings could get past; none does.
        """
        return self._protect(value, sentinel, self._marks(sentinel))

    def split(self, text: str, sentinel: str = "") -> Iterator[Piece]:
        """The pieces of rendered `text` in order, without empty ones and without the sentinel."""
        end = 0
        for match in self._pattern.finditer(text):
            yield from _plain(text[end : match.start()], sentinel)
            yield Piece(match.group(), is_control=True)
            end = match.end()
        yield from _plain(text[end:], sentinel)

    def _marks(self, sentinel: str) -> dict[int, str]:
        """For `str.translate`: the sentinel goes behind a token's first character and before its last."""
        marks = {ord(char): char + sentinel for char in self._firsts}
        return marks | {ord(char): sentinel + marks.get(ord(char), char) for char in self._lasts}

    def _protect(self, value: Any, sentinel: str, marks: dict[int, str]) -> Any:
        if isinstance(value, str):
            inside = value.strip().casefold() in self._insides
            return (sentinel if inside else "") + value.translate(marks)
        if isinstance(value, dict):
            return {
                self._protect(key, sentinel, marks): self._protect(item, sentinel, marks)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._protect(item, sentinel, marks) for item in value]
        return value


def _insides(token: str) -> Iterator[str]:
    """What a template could frame to spell `token`: `|im_end|`, `im_end|`, `|im_end` and `im_end`."""
    word = re.search(r"\w.*\w|\w", token, re.DOTALL)
    first, last = word.span() if word else (1, len(token) - 1)
    for start in range(1, max(first, 1) + 1):
        for end in range(min(last, len(token) - 1), len(token)):
            yield token[start:end].strip().casefold()


def _plain(text: str, sentinel: str) -> Iterator[Piece]:
    if sentinel:
        # A template may ask `tojson` for ASCII: then the sentinel is there as its escape.
        text = text.replace(sentinel, "").replace(_escaped(sentinel), "")
    if text:
        yield Piece(text, is_control=False)


def _escaped(char: str) -> str:
    return json.dumps(char)[1:-1]
