"""One section of thinking or answer: trims its blank edges and finds Markdown code in it."""

from __future__ import annotations

import re

_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})[^`]*$")
_BACKTICKS = re.compile("`+")


class Section:
    """Takes the text of a section character by character and returns what is not part of its blank edges.

    The returned text, joined, is the section without newlines at either end. A section of only whitespace
    returns nothing.
    """

    def __init__(self) -> None:
        self.is_empty = True
        self.code = CodeTracker()
        self._held_back = ""

    def add(self, char: str) -> str:
        """Add one character; return the text that can be shown now."""
        self.code.add(char)
        if char == "\n" or (self.is_empty and char.isspace()):
            self._held_back += char
            return ""
        text = (self._held_back.lstrip("\n") if self.is_empty else self._held_back) + char
        self.is_empty, self._held_back = False, ""
        return text

    def trailing_newlines(self) -> str:
        """The newlines held back. They are part of the text where the turn ends with this section."""
        return "" if self.is_empty else self._held_back


class CodeTracker:
    """Follows Markdown text and tells whether the next character is in a code span or fence."""

    def __init__(self) -> None:
        self.line = ""
        self._fence = ""

    @property
    def at_line_start(self) -> bool:
        """The current line holds only whitespace so far."""
        return not self.line.strip()

    @property
    def in_span(self) -> bool:
        """A code span was opened on this line and is not closed yet."""
        return len(_BACKTICKS.findall(self.line)) % 2 == 1

    @property
    def in_code(self) -> bool:
        """The next character is in a code span or fence, or in the line that opens a fence."""
        return bool(self._fence) or _FENCE.match(self.line) is not None or self.in_span

    def add(self, char: str) -> None:
        """Add one character."""
        if char != "\n":
            self.line += char
            return
        if self._fence:
            if self._closes_fence(self.line.strip(" \t>\r")):
                self._fence = ""
        elif fence := _FENCE.match(self.line):
            self._fence = fence[1]
        self.line = ""

    def _closes_fence(self, line: str) -> bool:
        return len(line) >= len(self._fence) and set(line) == {self._fence[0]}
