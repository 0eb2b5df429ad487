"""A terminal that wraps its lines anew when its width changes, as most do and the emulator pyte does not."""

from __future__ import annotations

import re

CODE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|(.)", re.DOTALL)


class ReflowingTerminal:
    """Takes what a program writes, of narrow characters and the few codes that the chat uses.

    A line that is longer than the width takes several rows. The screen is the last `height` rows; the cursor
    cannot leave it, so what is above stays.
    """

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self._lines = [""]
        self._row = self._column = 0
        self._wraps = True

    @property
    def text(self) -> str:
        """All lines, those of the scrollback first."""
        return "\n".join(line.rstrip() for line in self._lines)

    def resize(self, width: int, height: int) -> None:
        """The cursor stays at its character."""
        line, start = self._rows[self._row]
        place = start + self._column
        self.width, self.height = width, height
        starts = [row for row, (number, begin) in enumerate(self._rows) if number == line and begin <= place]
        self._row = starts[-1]
        self._column = place - self._rows[self._row][1]

    def write(self, text: str) -> int:
        """Obey `text`."""
        for arguments, code, char in CODE.findall(text):
            self._obey(arguments, code) if code else self._put(char)
        return len(text)

    def flush(self) -> None:
        """What is written is shown at once."""

    @property
    def _rows(self) -> list[tuple[int, int]]:
        """The line of each row, and where in it the row begins."""
        return [
            (number, start)
            for number, line in enumerate(self._lines)
            for start in range(0, max(len(line), 1), self.width)
        ]

    @property
    def _top(self) -> int:
        return max(len(self._rows) - self.height, 0)

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._row, self._column = self._row + 1, 0
            if self._row == len(self._rows):
                self._lines.append("")
        elif char.isprintable():
            if self._column == self.width and self._wraps:
                self._row, self._column = self._row + 1, 0
                if self._row == len(self._rows):
                    self._lines[-1] += char  # the line goes on in the next row
                    self._column = 1
                    return
            column = min(self._column, self.width - 1)
            line, start = self._rows[self._row]
            padded = self._lines[line].ljust(start + column)
            self._lines[line] = padded[: start + column] + char + padded[start + column + 1 :]
            self._column = column + 1

    def _obey(self, arguments: str, code: str) -> None:
        number = int(arguments) if arguments.isdecimal() else 1
        if code == "A":
            self._row = max(self._row - number, self._top)
        elif code in "CD":
            self._column = max(self._column + (number if code == "C" else -number), 0)
        elif code in "JK":
            self._cut(erases_below=code == "J")
        elif arguments == "?7":
            self._wraps = code == "h"

    def _cut(self, erases_below: bool) -> None:
        """Erase the rest of the cursor's row, which is then a line of its own, and perhaps all rows below."""
        line, start = self._rows[self._row]
        text = self._lines[line]
        before, after = text[:start], text[start + self.width :]
        kept = [text[start : start + min(self._column, self.width)]]
        self._lines[line : line + 1] = [*([before] if before else []), *kept, *([after] if after else [])]
        if erases_below:
            del self._lines[line + bool(before) + 1 :]
