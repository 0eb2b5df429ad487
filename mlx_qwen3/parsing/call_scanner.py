"""Follows the body of a call as it streams: where its name and arguments are, and where it may end.

Neither body judges what it reads; `reading.py` does, once the call is complete.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from enum import Enum, auto

CLOSE = "</tool_call>"
OPEN = "<tool_call>"
ARGUMENT_KEYS = ("arguments", "parameters", "args")


class Tag(Enum):
    """What a tag inside a body is: the call's end, text of a value, or not known before more is read."""

    ENDS = auto()
    TEXT = auto()
    DOUBT = auto()


class Body(ABC):
    """One call's body.

    text: all of it. name: the tool's name, once read. settled: after `doubt()`, whether the doubtful
    tag was text; None while that is open.
    """

    def __init__(self) -> None:
        self.text = ""
        self.name: str | None = None
        self.is_complete = False
        self.settled: bool | None = None
        self.mark: int | None = None
        self._arguments_start: int | None = None
        self._arguments_end: int | None = None
        self._taken = 0

    @abstractmethod
    def feed(self, char: str) -> None:
        """Take one character."""

    @abstractmethod
    def judge(self, tag: str) -> Tag:
        """What a `<tool_call>` or `</tool_call>` arriving now is."""

    def doubt(self) -> None:
        """A doubtful tag comes next: remember where."""
        self.mark, self.settled = len(self.text), None

    def trust(self) -> None:
        """The doubtful tag was text."""
        self.mark = None

    def cut(self) -> None:
        """The doubtful tag ended the call: forget it and what came after."""
        self.text, self.mark = self.text[: self.mark], None

    def take_arguments(self, is_last: bool = False) -> str:
        """The characters of the arguments not yet taken. `is_last`: no more will come."""
        if self._arguments_start is None:
            return ""
        start = max(self._arguments_start, self._taken)
        end = self._arguments_end if self._arguments_end is not None else self._safe_end(is_last)
        self._taken = max(start, end)
        return self.text[start:end]

    def _safe_end(self, is_last: bool) -> int:  # noqa: ARG002
        return len(self.text)


class JSONBody(Body):
    """`{"name": ..., "arguments": {...}}`: follows strings and brackets."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._quote = ""
        self._escaped = False
        self._string_start = 0
        self._string_just_ended = False
        self._string = ""
        self._before = ""  # the last character that is not whitespace, outside strings
        self._key: str | None = None

    def feed(self, char: str) -> None:
        self.text += char
        if self._quote:
            self._in_string(char)
        elif not char.isspace():
            self._outside(char)

    def judge(self, tag: str) -> Tag:  # noqa: ARG002
        return Tag.DOUBT if self._quote else Tag.ENDS

    def _in_string(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == self._quote:
            self._quote, self._before = "", char
            self._string = self.text[self._string_start + 1 : -1]
            self._string_just_ended = True
            self._end_string()
        elif char == "\n" and self.mark is not None:
            self.settled = False

    def _end_string(self) -> None:
        if self._depth == 1 and not self.is_complete and self._key is not None:
            if self._key == "name" and self.name is None and self.mark is None:
                self.name = self._string
            elif self._arguments_start is not None and self._arguments_end is None:
                self._arguments_end = len(self.text)

    def _outside(self, char: str) -> None:
        if self.mark is not None and self.settled is None and self._string_just_ended:
            self.settled = char in ",:}]"
        self._string_just_ended = False
        if not self.is_complete:
            self._follow(char)
        self._before = char

    def _follow(self, char: str) -> None:
        if self._before == ":" and self._depth == 1 and self._key in ARGUMENT_KEYS:
            self._arguments_start = self._arguments_start or len(self.text) - 1
        if char in "'\"" and self._before and self._before in "{[,:":
            self._quote, self._string_start = char, len(self.text) - 1
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._close_bracket()
        elif self._depth == 1 and char == ":":
            self._key = self._string
        elif self._depth == 1 and char == ",":
            self._end_arguments(len(self.text) - 1)

    def _close_bracket(self) -> None:
        self._depth -= 1
        if self._depth == 1:
            self._end_arguments(len(self.text))
        elif self._depth <= 0:
            self._end_arguments(len(self.text) - 1)
            self.is_complete = True

    def _end_arguments(self, end: int) -> None:
        if self._arguments_start is not None and self._arguments_end is None:
            self._arguments_end = end
        if self._depth == 1:
            self._key = None


FUNCTION = re.compile(r"<function(?:=|\s+name=)\s*[\"']?([^\"'<>]+?)[\"']?\s*>")
PARAMETER = re.compile(r"<parameter(?:=|\s+name=)\s*[\"']?([^\"'<>]+?)[\"']?\s*>")
FUNCTION_END, PARAMETER_END = "</function>", "</parameter>"
LONGEST_MARK = 200


def quoted_until(before: str) -> str:
    """What ends a call quoted inside a value, given the text before its `<function=...>`."""
    return CLOSE if before[-LONGEST_MARK:].rstrip().endswith(OPEN) else FUNCTION_END


class XMLBody(Body):
    """`<function=name><parameter=key>value</parameter></function>`: follows the four marks.

    A call quoted inside a value, from its `<function=...>` to its last closing tag, is part of the value.
    """

    def __init__(self) -> None:
        super().__init__()
        self._in_value = False
        self._quoted_until = ""

    def feed(self, char: str) -> None:
        self.text += char
        if char == ">" and not self.is_complete:
            start = self.text.rfind("<", max(0, len(self.text) - LONGEST_MARK))
            if start >= 0:
                self._follow(self.text[start:])

    def judge(self, tag: str) -> Tag:
        if not self._in_value:
            return Tag.ENDS
        return Tag.TEXT if tag == OPEN or self._quoted_until == CLOSE else Tag.DOUBT

    def doubt(self) -> None:
        super().doubt()
        self._quoted_until = ""

    def _follow(self, mark: str) -> None:
        if self._quoted_until:
            if mark == self._quoted_until:
                self._quoted_until = ""
        elif self._in_value:
            self._follow_value(mark)
        elif mark == FUNCTION_END:
            self.is_complete = True
            self._arguments_end = len(self.text) - len(mark)
        elif PARAMETER.fullmatch(mark):
            self._in_value = True
        elif self.name is None and (match := FUNCTION.fullmatch(mark)):
            self.name, self._arguments_start = match[1].strip(), len(self.text)

    def _follow_value(self, mark: str) -> None:
        if mark == PARAMETER_END:
            self._in_value = False
            self._settle(True)
        elif PARAMETER.fullmatch(mark):
            self._settle(False)
        elif FUNCTION.fullmatch(mark):
            self._settle(False)
            self._quoted_until = quoted_until(self.text[: -len(mark)])

    def _settle(self, was_text: bool) -> None:
        if self.mark is not None and self.settled is None:
            self.settled = was_text

    def _safe_end(self, is_last: bool) -> int:
        """Where a `</function>` that may be arriving begins."""
        start = self.text.rfind("<", max(0, len(self.text) - len(FUNCTION_END)))
        return len(self.text) if is_last or start < 0 or self._in_value else start
