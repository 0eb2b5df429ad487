"""Texts of several lines in the input line: between three quotes, or pasted.

A long pasted text is shown as one word, such as [60 lines pasted].
"""

from __future__ import annotations

import re

from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

# A text of at least so many lines or characters is folded.
LONG_LINES, LONG_CHARACTERS = 8, 1500
QUOTES = '"""'
WORD = re.compile(r"\[[\d,]+ (?:lines|characters) pasted(?:, \d+)?\]")


class Pasted:
    """The texts behind the words of a line."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def fold(self, text: str) -> str:
        """What the line shows of a pasted text: a word for a long one."""
        for word, folded in self._texts.items():
            if folded == text:
                return word
        lines = text.removesuffix("\n").count("\n") + 1
        if lines < LONG_LINES and len(text) < LONG_CHARACTERS:
            return text
        size = f"{lines:,} lines" if lines >= LONG_LINES else f"{len(text):,} characters"
        number = sum(word.startswith(f"[{size} pasted") for word in self._texts) + 1
        word = f"[{size} pasted]" if number == 1 else f"[{size} pasted, {number}]"
        self._texts[word] = text
        return word

    def expand(self, line: str) -> str:
        """`line` with the texts in place of their words."""
        return WORD.sub(lambda match: self._texts.get(match[0], match[0]), line)

    def collapse(self, text: str) -> str:
        """The opposite of `expand`: `text` with words in place of the texts that were pasted."""
        for word, pasted in self._texts.items():
            text = text.replace(pasted, word)
        return text

    def shown(self, text: str) -> str:
        """What the line shows of `text`, which may hold texts that were pasted."""
        collapsed = self.collapse(text)
        return (
            collapsed
            if len(collapsed) < LONG_CHARACTERS and collapsed.count("\n") < LONG_LINES
            else self.fold(text)
        )

    def bind(self, bindings: KeyBindings) -> None:
        """Have pasted text folded."""

        @bindings.add(Keys.BracketedPaste)
        def paste(event: KeyPressEvent) -> None:
            text = event.data.replace("\r\n", "\n").replace("\r", "\n")  # as terminals send line breaks
            event.current_buffer.insert_text(self.fold(text))


def without_quotes(text: str) -> str:
    """`text` without the three quotes at both ends, if it has them."""
    stripped = text.strip()
    if len(stripped) < 2 * len(QUOTES) or not (stripped.startswith(QUOTES) and stripped.endswith(QUOTES)):
        return text
    return stripped[len(QUOTES) : -len(QUOTES)].strip("\n")


def is_complete(text: str) -> bool:
    """Whether Enter sends `text`: not while opening three quotes are not closed."""
    stripped = text.strip()
    return not stripped.startswith(QUOTES) or (len(stripped) >= 2 * len(QUOTES) and stripped.endswith(QUOTES))
