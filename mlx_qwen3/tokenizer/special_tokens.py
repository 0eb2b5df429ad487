"""Special-token injection guard: supplied text never becomes a special token.

Only the chat template may write special tokens (`<|im_end|>`, `<think>`, `<tool_call>`, ...). Before a
template renders, a *sentinel* is put into every supplied string, at each place that could be part of the
spelling of a special token. The sentinel is a character that the conversation does not contain. After
rendering, the text is split at the special tokens that are still spelled without a sentinel: only the
template can have written those. Then the sentinel is removed from the text between them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from mlx_qwen3.errors import MessageError

# Unicode noncharacters first, because no text should contain one. Then the private-use areas.
# Dictionaries whose keys people name: properties of a schema, arguments of a call.
_NAMED_BY_PEOPLE = ("arguments", "properties", "patternProperties", "$defs", "definitions")
# Keys that templates read: of messages, of calls, of tools and of JSON schemas.
_TEMPLATE_KEYS = frozenset([
    *("role", "content", "reasoning_content", "name", "tool_calls", "tool_call_id", "id", "function"),
    *("arguments", "description", "parameters", "strict", "properties", "required", "items", "enum", "index"),
    "const",
    *("type", "title", "default", "format", "pattern", "additionalProperties", "patternProperties", "anyOf"),
    *("oneOf", "allOf", "prefixItems", "$ref", "$defs", "definitions", "return", "response", "text"),
])  # fmt: skip
_SENTINELS = (
    range(0xFDD0, 0xFDF0),
    range(0xE000, 0xF900),
    range(0xF0000, 0xFFFFE),
    range(0x100000, 0x10FFFE),
)


class PromptPiece(NamedTuple):
    """A part of a prompt: plain text, or one special token."""

    text: str
    is_special: bool


def choose_sentinel(*texts: str) -> str:
    """A character that `texts` contain neither as it is nor as its JSON escape.

    Raises MessageError if they contain every candidate.
    """
    for code_point in chain(*_SENTINELS):
        sentinel = chr(code_point)
        if not any(sentinel in text or _json_escape(sentinel) in text for text in texts):
            return sentinel
    raise MessageError("the conversation contains every private-use character: remove some of them")


class SpecialTokenGuard:
    """Protects supplied values against `special_tokens`, and finds those that a template wrote."""

    def __init__(self, special_tokens: Iterable[str]) -> None:
        # A token of one character has no inside for a sentinel, so it is never recognized in a prompt.
        tokens = sorted((token for token in special_tokens if len(token) > 1), key=len, reverse=True)
        # Longest first: the leftmost match is the longest one, as in the tokenizers library.
        self._pattern = re.compile("|".join(map(re.escape, tokens)) or r"(?!)")
        self._first_characters = {token[0] for token in tokens}
        self._last_characters = {token[-1] for token in tokens}
        self._insides = {inside for token in tokens for inside in _insides(token)}

    def protect(self, value: Any, sentinel: str) -> Any:
        """A copy of a JSON-like `value` whose strings, keys included, cannot spell a special token.

        The sentinel follows each character that begins a special token and precedes each one that ends
        one. So a spelling that takes its first or last character from a supplied string contains the
        sentinel, however the template cuts or joins strings. A string that is the inside of a special token
        gets a sentinel before it, for templates that write `<` + key + `>`. The guard does not cover a
        template that joins the inside from several supplied strings; no known template does that.

        Keys that a template reads by name, such as `content`, stay as they are.
        """
        return self._protect(value, sentinel, self._replacements(sentinel), named_by_people=False)

    def split(self, text: str, sentinel: str = "") -> Iterator[PromptPiece]:
        """The pieces of rendered `text` in order, without empty ones and without the sentinel."""
        end = 0
        for match in self._pattern.finditer(text):
            yield from _plain_piece(text[end : match.start()], sentinel)
            yield PromptPiece(match.group(), is_special=True)
            end = match.end()
        yield from _plain_piece(text[end:], sentinel)

    def _replacements(self, sentinel: str) -> dict[int, str]:
        """For `str.translate`: the sentinel after first and before last characters of special tokens."""
        after = {ord(char): char + sentinel for char in self._first_characters}
        return after | {ord(char): sentinel + after.get(ord(char), char) for char in self._last_characters}

    def _protect(self, value: Any, sentinel: str, replacements: dict[int, str], named_by_people: bool) -> Any:
        if isinstance(value, str):
            is_inside = value.strip().casefold() in self._insides
            return (sentinel if is_inside else "") + value.translate(replacements)
        if isinstance(value, dict):
            protected = {}
            for key, item in value.items():
                is_kept = key in _TEMPLATE_KEYS and not named_by_people
                safe_key = key if is_kept else self._protect(key, sentinel, replacements, False)
                holds_names = is_kept and key in _NAMED_BY_PEOPLE
                protected[safe_key] = self._protect(item, sentinel, replacements, holds_names)
            return protected
        if isinstance(value, list | tuple):
            return [self._protect(item, sentinel, replacements, False) for item in value]
        return value


def _insides(token: str) -> Iterator[str]:
    """What a template could frame to spell `token`: `|im_end|`, `im_end|`, `|im_end` and `im_end`."""
    word = re.search(r"\w.*\w|\w", token, re.DOTALL)
    first, last = word.span() if word else (1, len(token) - 1)
    for start in range(1, max(first, 1) + 1):
        for end in range(min(last, len(token) - 1), len(token)):
            yield token[start:end].strip().casefold()


def _plain_piece(text: str, sentinel: str) -> Iterator[PromptPiece]:
    if sentinel:
        # If the template asks `tojson` for ASCII, the sentinel is in the text as its escape.
        text = text.replace(sentinel, "").replace(_json_escape(sentinel), "")
    if text:
        yield PromptPiece(text, is_special=False)


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1]
