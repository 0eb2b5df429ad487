"""A run of thinking or answer: its blank edges, and where in it Markdown code is."""

from __future__ import annotations

import re

_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})[^`]*$")
_TICKS = re.compile("`+")


class Section:
    """Takes a section's text character by character; hands on what is surely not its blank edge.

    Joined, the text handed on is the section without newlines at either end, and nothing at all if the
    section is whitespace.
    """

    def __init__(self) -> None:
        self.is_empty = True
        self.code = CodeTracker()
        self._held = ""

    def add(self, char: str) -> str:
        """Take one character; return the text to show now."""
        self.code.add(char)
        if char == "\n" or (self.is_empty and char.isspace()):
            self._held += char
            return ""
        shown = (self._held.lstrip("\n") if self.is_empty else self._held) + char
        self.is_empty, self._held = False, ""
        return shown

    def rest(self) -> str:
        """The newlines held back, once it is known that the turn ends here."""
        return "" if self.is_empty else self._held


class CodeTracker:
    """Follows text and knows whether its end is inside a Markdown code span or fence."""

    def __init__(self) -> None:
        self.line = ""
        self._fence = ""

    @property
    def at_line_start(self) -> bool:
        """Nothing but whitespace stands before on this line."""
        return not self.line.strip()

    @property
    def in_span(self) -> bool:
        """A code span was opened on this line and is not closed yet."""
        return len(_TICKS.findall(self.line)) % 2 == 1

    @property
    def inside(self) -> bool:
        """The next character is code, or names the language of a fence."""
        return bool(self._fence) or _FENCE.match(self.line) is not None or self.in_span

    def add(self, char: str) -> None:
        """Take one character."""
        if char != "\n":
            self.line += char
            return
        if self._fence:
            if self._closes(self.line.strip(" \t>\r")):
                self._fence = ""
        elif fence := _FENCE.match(self.line):
            self._fence = fence[1]
        self.line = ""

    def _closes(self, line: str) -> bool:
        return len(line) >= len(self._fence) and set(line) == {self._fence[0]}
