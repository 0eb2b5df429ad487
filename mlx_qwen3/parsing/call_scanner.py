"""Follows the body of a tool call as it streams: where its name and arguments are, and where it may end.

A scanner does not validate. `call_reader.py` does, once the call is complete.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from enum import Enum, auto

OPEN, CLOSE = "<tool_call>", "</tool_call>"
ARGUMENT_KEYS = ("arguments", "parameters", "args")

FUNCTION = re.compile(r"<function(?:=|\s+name=)\s*[\"']?([^\"'<>]+?)[\"']?\s*>")
# Models forget the `>` of a parameter: its name then ends with the line.
PARAMETER = re.compile(r"<parameter(?:=|\s+name=)[ \t]*[\"']?([^\"'<>\n]+?)[\"']?(?:\s*>|[ \t]*(?=\n))")
FUNCTION_END, PARAMETER_END = "</function>", "</parameter>"
LONGEST_XML_TAG = 200  # characters; how far back from a `>` its `<` is searched


class TagMeaning(Enum):
    """What a `<tool_call>` or `</tool_call>` inside a body is.

    END: it ends the call. TEXT: it is part of a value. AMBIGUOUS: only later text can tell.
    """

    END = auto()
    TEXT = auto()
    AMBIGUOUS = auto()


class CallScanner(ABC):
    """The body of one call.

    Attributes:
        text: The body so far.
        name: The name of the tool, once it is complete.
        is_complete: The outermost JSON bracket, or `</function>`, was closed.
        ambiguous_at: Where in `text` an ambiguous tag begins; None if there is none.
        is_tag_text: Whether the ambiguous tag is text; None while that is not known.
    """

    def __init__(self) -> None:
        self.text = ""
        self.name: str | None = None
        self.is_complete = False
        self.ambiguous_at: int | None = None
        self.is_tag_text: bool | None = None
        self._arguments_start: int | None = None
        self._arguments_end: int | None = None
        self._taken = 0

    @abstractmethod
    def feed(self, char: str) -> None:
        """Add one character."""

    @abstractmethod
    def classify(self, tag: str) -> TagMeaning:
        """The meaning of a `<tool_call>` or `</tool_call>` that comes next."""

    def begin_ambiguous_tag(self) -> None:
        """An ambiguous tag comes next."""
        self.ambiguous_at, self.is_tag_text = len(self.text), None

    def keep_ambiguous_tag(self) -> None:
        """The ambiguous tag was text."""
        self.ambiguous_at = None

    def cut_at_ambiguous_tag(self) -> None:
        """The ambiguous tag ended the call: drop it and what follows it."""
        self.text, self.ambiguous_at = self.text[: self.ambiguous_at], None

    def take_arguments(self, is_last: bool = False) -> str:
        """The text of the arguments that was not taken yet. `is_last`: the body is complete."""
        if self._arguments_start is None:
            return ""
        start = max(self._arguments_start, self._taken)
        end = self._arguments_end if self._arguments_end is not None else self._safe_end(is_last)
        self._taken = max(start, end)
        return self.text[start:end]

    def _safe_end(self, is_last: bool) -> int:  # noqa: ARG002
        """Up to where the text surely belongs to the arguments."""
        return len(self.text)


class JSONCallScanner(CallScanner):
    """`{"name": ..., "arguments": {...}}`: follows strings and brackets."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._quote = ""  # the quote that opened the current string
        self._is_escaped = False
        self._string_start = 0
        self._string_just_ended = False
        self._string = ""  # the latest string
        self._previous = ""  # the latest character outside strings that is not whitespace
        self._key: str | None = None

    def feed(self, char: str) -> None:
        self.text += char
        if self._quote:
            self._feed_string(char)
        elif not char.isspace():
            self._feed_structure(char)

    def classify(self, tag: str) -> TagMeaning:  # noqa: ARG002
        return TagMeaning.AMBIGUOUS if self._quote else TagMeaning.END

    def _feed_string(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        elif char == self._quote:
            self._quote, self._previous = "", char
            self._string = self.text[self._string_start + 1 : -1]
            self._string_just_ended = True
            self._end_string()
        elif char == "\n" and self.ambiguous_at is not None:
            self.is_tag_text = False

    def _end_string(self) -> None:
        if self._depth == 1 and not self.is_complete and self._key is not None:
            if self._key == "name" and self.name is None and self.ambiguous_at is None:
                self.name = self._string
            elif self._arguments_start is not None and self._arguments_end is None:
                self._arguments_end = len(self.text)

    def _feed_structure(self, char: str) -> None:
        if self.ambiguous_at is not None and self.is_tag_text is None and self._string_just_ended:
            self.is_tag_text = char in ",:}]"
        self._string_just_ended = False
        if not self.is_complete:
            self._follow(char)
        self._previous = char

    def _follow(self, char: str) -> None:
        if self._previous == ":" and self._depth == 1 and self._key in ARGUMENT_KEYS:
            self._arguments_start = self._arguments_start or len(self.text) - 1
        if char in "'\"" and self._previous and self._previous in "{[,:":
            self._quote, self._string_start = char, len(self.text) - 1
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._close_bracket()
        elif self._depth == 1 and char == ":":
            self._key = self._string
        elif self._depth == 1 and char == ",":
            self._end_value(len(self.text) - 1)

    def _close_bracket(self) -> None:
        self._depth -= 1
        if self._depth == 1:
            self._end_value(len(self.text))
        elif self._depth <= 0:
            self._end_value(len(self.text) - 1)
            self.is_complete = True

    def _end_value(self, end: int) -> None:
        """A value of the outermost object ends at `end`."""
        if self._arguments_start is not None and self._arguments_end is None:
            self._arguments_end = end
        if self._depth == 1:
            self._key = None


class XMLCallScanner(CallScanner):
    """`<function=name><parameter=key>value</parameter></function>`: follows these four XML tags.

    A call quoted inside a value, from its `<function=...>` to its last closing tag, is part of the value.
    """

    def __init__(self) -> None:
        super().__init__()
        self._in_value = False
        self._quoted_call_end = ""  # the tag that ends the call quoted in the current value

    def feed(self, char: str) -> None:
        self.text += char
        if char in ">\n" and not self.is_complete:
            start = self.text.rfind("<", max(0, len(self.text) - LONGEST_XML_TAG))
            if start >= 0:
                self._follow(self.text[start:])

    def classify(self, tag: str) -> TagMeaning:
        if not self._in_value:
            return TagMeaning.END
        is_quoted = tag == OPEN or self._quoted_call_end == CLOSE
        return TagMeaning.TEXT if is_quoted else TagMeaning.AMBIGUOUS

    def begin_ambiguous_tag(self) -> None:
        super().begin_ambiguous_tag()
        self._quoted_call_end = ""

    def _follow(self, xml_tag: str) -> None:
        if self._quoted_call_end:
            if xml_tag == self._quoted_call_end:
                self._quoted_call_end = ""
        elif self._in_value:
            self._follow_in_value(xml_tag)
        elif xml_tag == FUNCTION_END:
            self.is_complete = True
            self._arguments_end = len(self.text) - len(xml_tag)
        elif PARAMETER.match(xml_tag):
            self._in_value = True
        elif self.name is None and (match := FUNCTION.fullmatch(xml_tag)):
            self.name, self._arguments_start = match[1].strip(), len(self.text)

    def _follow_in_value(self, xml_tag: str) -> None:
        if xml_tag == PARAMETER_END:
            self._in_value = False
            self._resolve(is_tag_text=True)
        elif PARAMETER.fullmatch(xml_tag):
            self._resolve(is_tag_text=False)
        elif FUNCTION.fullmatch(xml_tag):
            self._resolve(is_tag_text=False)
            self._quoted_call_end = quoted_call_end(self.text[: -len(xml_tag)])

    def _resolve(self, is_tag_text: bool) -> None:
        if self.ambiguous_at is not None and self.is_tag_text is None:
            self.is_tag_text = is_tag_text

    def _safe_end(self, is_last: bool) -> int:
        """The start of a `</function>` that may be arriving does not belong to the arguments."""
        start = self.text.rfind("<", max(0, len(self.text) - len(FUNCTION_END)))
        return len(self.text) if is_last or start < 0 or self._in_value else start


def quoted_call_end(before: str) -> str:
    """The tag that ends a call quoted inside a value. `before`: the text before its `<function=...>`."""
    return CLOSE if before[-LONGEST_XML_TAG:].rstrip().endswith(OPEN) else FUNCTION_END
