"""Reads JSON with the mistakes that models make, where only one meaning is possible.

Accepted beyond JSON: single quotes, Python's True, False and None, keys without quotes, trailing commas, a
missing comma before a quoted key, raw line breaks in strings, escapes that JSON does not have, and missing
closing brackets at the end (of a text that was not cut off). Refused: anything else, a key given twice with
different values, and numbers that JSON does not have.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_WORD = re.compile(r"[\w.+-]+")
_KEY = re.compile(r"[A-Za-z_][\w-]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"} | {char: char for char in "\"'/\\"}
MAX_DEPTH = 100


class LooseJSONError(ValueError):
    """The text is not JSON and cannot be repaired. The message says what was expected, and where."""


def read(text: str, start: int = 0, *, is_whole: bool = True) -> tuple[Any, int]:
    """The JSON value at `start`, and the position after it. Valid JSON is read by Python's own decoder.

    is_whole: the text was not cut off, so closing brackets missing at its end may be added.
    Raises LooseJSONError.
    """
    begin = _skip(text, start)
    try:
        value, end = _STRICT.raw_decode(text, begin)
        return _without_surrogates(value), end
    except (ValueError, RecursionError):
        reader = _Reader(text, is_whole)
        return _without_surrogates(reader.value(begin, 0)), reader.end


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None  # matches the empty string
    return match.end()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result and result[key] != value:
            raise LooseJSONError(f'the key "{key}" is given twice')
        result[key] = value
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise LooseJSONError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse_constant(digits)


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite, strict=False
)


def _without_surrogates(value: Any) -> Any:
    """Replaces halves of surrogate pairs, which have no UTF-8, by U+FFFD."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


class _Reader:
    """A recursive descent parser. `end` is the position after the last value read."""

    def __init__(self, text: str, is_whole: bool):
        self.text, self.is_whole = text, is_whole
        self.end = 0

    def value(self, position: int, depth: int) -> Any:
        position = _skip(self.text, position)
        first = self.text[position : position + 1]
        if depth > MAX_DEPTH:
            raise LooseJSONError("it is nested too deeply")
        if first == "{":
            return _unique(self._pairs(position + 1, depth))
        if first == "[":
            return self._array(position + 1, depth)
        if first in ("'", '"'):
            return self._string(position)
        return self._word(position)

    def _pairs(self, position: int, depth: int) -> list[tuple[str, Any]]:
        pairs: list[tuple[str, Any]] = []
        while not self._closed(position, "}"):
            key = self._key(_skip(self.text, position))
            colon = _skip(self.text, self.end)
            if self.text[colon : colon + 1] != ":":
                self._fail(colon, f'":" after the key "{key}"')
            pairs.append((key, self.value(colon + 1, depth + 1)))
            position = self._after_item("}", next_may_lack_comma=True)
        return pairs

    def _array(self, position: int, depth: int) -> list[Any]:
        items: list[Any] = []
        while not self._closed(position, "]"):
            items.append(self.value(position, depth + 1))
            position = self._after_item("]", next_may_lack_comma=False)
        return items

    def _closed(self, position: int, bracket: str) -> bool:
        """Whether `bracket` comes next, or is missing at the end of a whole text."""
        position = _skip(self.text, position)
        if position == len(self.text):
            if not self.is_whole:
                raise LooseJSONError("it was cut off")
            self.end = position
            return True
        self.end = position + 1
        return self.text[position] == bracket

    def _after_item(self, bracket: str, next_may_lack_comma: bool) -> int:
        """The position of the next item, or of the closing bracket."""
        position = _skip(self.text, self.end)
        following = self.text[position : position + 1]
        if following == ",":
            return position + 1
        if following in ("", bracket) or (next_may_lack_comma and following in ("'", '"')):
            return position
        return self._fail(position, f'"," or "{bracket}"')

    def _key(self, position: int) -> str:
        if self.text[position] in "'\"":
            return self._string(position)
        if not (match := _KEY.match(self.text, position)):
            return self._fail(position, "a key")
        self.end = match.end()
        return match[0]

    def _word(self, position: int) -> Any:
        match = _WORD.match(self.text, position)
        word = match[0] if match else ""
        self.end = position + len(word)
        if word in _WORDS:
            return _WORDS[word]
        if _NUMBER.fullmatch(word) and len(word) < 1000:
            return _STRICT.decode(word)
        return self._fail(position, "a value")

    def _string(self, position: int) -> str:
        quote, parts, at = self.text[position], [], position + 1
        while at < len(self.text) and self.text[at] != quote:
            if self.text[at] == "\\":
                part, at = self._escape(at)
            else:
                part, at = self.text[at], at + 1
            parts.append(part)
        if at >= len(self.text):
            self._fail(position, "a closing quote for the string")
        self.end = at + 1
        return "".join(parts).encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _escape(self, at: int) -> tuple[str, int]:
        """The character that an escape stands for, and the position after it. Unknown: the backslash."""
        following = self.text[at + 1 : at + 2]
        if following in _ESCAPES:
            return _ESCAPES[following], at + 2
        digits = re.compile("u([0-9a-fA-F]{4})").match(self.text, at + 1)
        return (chr(int(digits[1], 16)), at + 6) if digits else ("\\", at + 1)

    def _fail(self, position: int, expected: str) -> NoReturn:
        following = self.text[position : position + 20]
        if following:
            raise LooseJSONError(f"expected {expected} at {following!r}")
        raise LooseJSONError(f"it ends before {expected}")
