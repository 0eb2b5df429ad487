"""CallText: the arguments of one tool call as JSON text that can be sent while the model writes it.

What a client has joined at the end must parse to the arguments of the finished call, which may have been
repaired, or written as XML. So only strict JSON is passed on. From the first character that is none the text
is held back until the call is complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_NUMBER_SO_FAR = re.compile(r"-?((0|[1-9]\d*)((\.\d*)?|(\.\d+)?[eE][+-]?\d*))?")
_LITERALS = ("true", "false", "null")
_SPACE = " \t\r\n"
_HEX = "0123456789abcdefABCDEF"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_NOTHING = object()


class CallText:
    """The text of one call's arguments."""

    def __init__(self) -> None:
        self._sent: list[str] = []
        self._scanner = _StrictJSON()
        self._pending = ""  # the beginning of an escape, a number or a literal
        self._is_held = False

    @property
    def sent(self) -> str:
        """All that was passed on so far."""
        return "".join(self._sent)

    def feed(self, text: str) -> str:
        """More of the arguments as the model spells them; what of it can be sent now."""
        if self._is_held:
            return ""
        length, safe = 0, 0
        for length, char in enumerate(text):
            if not self._scanner.take(char):
                self._is_held = True
                break
            if self._scanner.is_between_tokens:
                safe = length + 1
        pending = self._pending + text
        cut = safe + len(self._pending) if safe else 0
        self._pending = pending[cut:]
        return self._send(pending[:cut])

    def finish(self, arguments: Mapping[str, Any]) -> str:
        """The call is complete: what is still to be sent, so that all of it parses to `arguments`.

        It is nothing if what was sent says something else already, which a repair hardly ever leads to.
        """
        if self._scanner.is_complete and not self._is_held and _parses_to(self.sent, arguments):
            return ""
        return self._send(_continuation(self.sent, json.dumps(dict(arguments), ensure_ascii=False)))

    def _send(self, text: str) -> str:
        self._sent.append(text)
        return text


def _parses_to(text: str, value: object) -> bool:
    try:
        return bool(json.loads(text) == value)
    except ValueError:
        return False


def _continuation(sent: str, text: str) -> str:
    """What makes of `sent`, the beginning of some JSON, the value that `text` is. The tokens of both are
    compared, since spaces and escapes may differ; the last one sent may be a string without its end."""
    before, tokens = _TOKEN.findall(sent), _TOKEN.findall(text)
    rest = tokens[len(before) :]
    for index, (theirs, ours) in enumerate(zip(before, tokens, strict=False)):
        if theirs == ours or _parses_to(theirs, _value(ours)):
            continue
        start, whole = _value(theirs + '"'), _value(ours)
        is_open = index == len(before) - 1 and isinstance(start, str) and isinstance(whole, str)
        if not (is_open and whole.startswith(start)):
            return ""
        rest = [json.dumps(whole[len(start) :], ensure_ascii=False)[1:], *rest]
    if len(before) > len(tokens):
        return ""
    return "".join(token + " " if token in (",", ":") else token for token in rest)


def _value(token: str) -> Any:
    try:
        return json.loads(token)
    except ValueError:
        return _NOTHING


class _StrictJSON:
    """Follows the text of one JSON object, character by character."""

    def __init__(self) -> None:
        self._open: list[str] = []  # the brackets that are still to be closed
        self._state = "start"
        self._token = ""  # of a number, a literal or an escape, what was read of it

    @property
    def is_complete(self) -> bool:
        return self._state == "end"

    @property
    def is_between_tokens(self) -> bool:
        """Whether the text could be cut here: not in an escape, a number or a literal."""
        return not self._token or self._state not in ("number", "literal", "string", "key string")

    def take(self, char: str) -> bool:
        """Reads on; whether `char` continues strict JSON."""
        if self._state == "number":
            if _NUMBER_SO_FAR.fullmatch(self._token + char):
                self._token += char
                return True
            if not _NUMBER.fullmatch(self._token):
                return False
            self._state = "after"
        if self._state in ("string", "key string"):
            return self._in_string(char)
        if self._state == "literal":
            self._token += char
            if self._token in _LITERALS:
                self._state = "after"
            return any(word.startswith(self._token) for word in _LITERALS)
        return char in _SPACE or self._at_structure(char)

    def _in_string(self, char: str) -> bool:
        if self._token:  # an escape
            self._token += char
            if self._token[1] == "u":
                is_good = len(self._token) == 2 or char in _HEX
                self._token = "" if len(self._token) == 6 else self._token
                return is_good
            self._token = ""
            return char in '"\\/bfnrt'
        if char == "\\":
            self._token = char
        elif char == '"':
            self._state = "colon" if self._state == "key string" else "after"
        return char >= " "

    def _at_structure(self, char: str) -> bool:
        state = self._state
        if state in ("first key", "key") and char == '"':
            self._state, self._token = "key string", ""
        elif state == "colon" and char == ":":
            self._state = "value"
        elif state == "start":
            return char == "{" and self._begin(char)
        elif state in ("value", "first value") and char not in "]":
            return self._begin(char)
        elif state == "after" and char == ",":
            self._state = "key" if self._open[-1] == "}" else "value"
        elif state in ("after", "first key", "first value") and self._open[-1] == char:
            self._open.pop()
            self._state = "after" if self._open else "end"
        else:
            return False
        return True

    def _begin(self, char: str) -> bool:
        """A value begins with `char`."""
        self._token = char
        if char in "{[":
            self._open.append("}" if char == "{" else "]")
            self._state = "first key" if char == "{" else "first value"
        elif char == '"':
            self._state, self._token = "string", ""
        elif char == "-" or (char.isdecimal() and char.isascii()):
            self._state = "number"
        elif any(word[0] == char for word in _LITERALS):
            self._state = "literal"
        else:
            return False
        return True
