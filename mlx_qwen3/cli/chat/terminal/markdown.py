"""Streamed Markdown: splits it into finished blocks and renders them."""

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
    """Takes streamed text and returns whole blocks (paragraphs, lists, code, tables).

    A block is finished once the next one begins, so a returned block never changes.
    """

    def __init__(self) -> None:
        self.tail = ""
        """The text of the unfinished block."""

    def push(self, text: str) -> list[str]:
        """Take more text; return the blocks that it finished."""
        self.tail += text
        if "\n" not in text:
            return []  # only a line break can finish a block
        starts = _block_starts(self.tail)
        if len(starts) < 2:
            return []
        lines = _lines(self.tail)
        blocks = ["".join(lines[a:b]) for a, b in pairwise(starts)]
        self.tail = "".join(lines[starts[-1] :])
        return blocks

    def finish(self) -> list[str]:
        """The remaining blocks; the stream is empty afterwards."""
        starts = _block_starts(self.tail)
        lines, self.tail = _lines(self.tail), ""
        return ["".join(lines[a:b]) for a, b in pairwise([*starts, len(lines)])]


def _block_starts(text: str) -> list[int]:
    """The line on which each top-level block of `text` begins; none if `text` is blank."""
    tokens = _parser().parse(text)
    starts = [token.map[0] for token in tokens if token.level == 0 and token.nesting >= 0 and token.map]
    # Lines that form no block (link definitions) go with the next block.
    return [0, *starts[1:]] if text.strip() else []


def _lines(text: str) -> list[str]:
    """The lines of `text` as Markdown counts them; str.splitlines also splits at U+2028 and others."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


@cache
def _parser() -> MarkdownIt:
    from mlx_qwen3.cli.chat.terminal.markdown_style import make_parser

    return make_parser()


def render_markdown(text: str) -> Markdown:
    """`text` rendered for the terminal: links with their addresses, code in the terminal's own colours."""
    from mlx_qwen3.cli.chat.terminal.markdown_style import ChatMarkdown

    return ChatMarkdown(text, "ansi_light" if is_light_terminal() else "ansi_dark")


def last_code_block(text: str) -> str:
    """The code of the last fenced or indented block in `text`. Raises MessageError if there is none."""
    blocks = [token.content for token in _parser().parse(text) if token.type in ("fence", "code_block")]
    if not blocks:
        raise MessageError("the last answer has no code block")
    return blocks[-1]


def console_theme() -> Theme:
    """Colours for a dark or a light terminal. Rich's default prints inline code on black."""
    from rich.theme import Theme

    colour = "blue" if is_light_terminal() else "cyan"
    headings = {f"markdown.h{level}": "bold" for level in range(2, 7)}
    return Theme(
        {
            **headings,
            "markdown.h1": f"bold {colour}",
            "markdown.code": f"bold {colour}",
            "markdown.item.bullet": colour,
            "markdown.item.number": colour,
            "markdown.block_quote": "italic",
            "markdown.table.border": "bright_black",
            "markdown.table.header": "bold",
            "markdown.hr": "bright_black",
        }
    )


def is_light_terminal() -> bool:
    """Whether the background is light, by COLORFGBG, which rxvt, Konsole and iTerm set."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return background in ("7", "15")
