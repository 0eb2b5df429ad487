"""Markdown that arrives in pieces: which blocks are finished, and how they look."""

from __future__ import annotations

import os
import re
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from mlx_qwen3.errors import MessageError

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from rich.markdown import Markdown
    from rich.theme import Theme


class BlockStream:
    """Text goes in as it comes; whole blocks (paragraphs, lists, code, tables) come out.

    A block is finished once the next has begun, so what was given out never changes.
    """

    def __init__(self) -> None:
        self.tail = ""
        """The unfinished rest."""

    def push(self, text: str) -> list[str]:
        """Take more text; return the blocks that it finished."""
        self.tail += text
        if "\n" not in text:
            return []  # only a line's end can finish a block
        starts = _block_starts(self.tail)
        if len(starts) < 2:
            return []
        lines = _lines(self.tail)
        blocks = ["".join(lines[a:b]) for a, b in pairwise(starts)]
        self.tail = "".join(lines[starts[-1] :])
        return blocks

    def finish(self) -> list[str]:
        """What is left; the stream starts afresh."""
        starts = _block_starts(self.tail)
        lines, self.tail = _lines(self.tail), ""
        return ["".join(lines[a:b]) for a, b in pairwise([*starts, len(lines)])]


def _block_starts(text: str) -> list[int]:
    """The line on which each top-level block of `text` begins; none if `text` is blank."""
    tokens = _parser().parse(text)
    starts = [token.map[0] for token in tokens if token.level == 0 and token.nesting >= 0 and token.map]
    # Lines that make no block by themselves (link definitions) go with the next one.
    return [0, *starts[1:]] if text.strip() else []


def _lines(text: str) -> list[str]:
    """The lines of `text` as Markdown counts them: str.splitlines would also cut at U+2028 and others."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt().enable("table")


def render_markdown(text: str) -> Markdown:
    """`text` for the terminal; links show where they lead, code keeps to the terminal's own colours."""
    from rich.markdown import Markdown

    theme = "ansi_light" if is_light_terminal() else "ansi_dark"
    return Markdown(text, code_theme=theme, hyperlinks=False)


def last_code_block(text: str) -> str:
    """The code in the last fenced or indented block of `text`. Raises MessageError if there is none."""
    blocks = [token.content for token in _parser().parse(text) if token.type in ("fence", "code_block")]
    if not blocks:
        raise MessageError("the last answer holds no block of code")
    return blocks[-1]


def console_theme() -> Theme:
    """Colours for a dark or a light terminal; Rich's own put words of code on a black ground."""
    from rich.theme import Theme

    colour = "blue" if is_light_terminal() else "cyan"
    return Theme({"markdown.code": f"bold {colour}", "markdown.code_block": colour})


def is_light_terminal() -> bool:
    """Whether the terminal says its background is light (COLORFGBG, as rxvt, Konsole and iTerm set it)."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return background in ("7", "15")
