"""Streamed Markdown: splits it into finished blocks and renders them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from mlx_qwen3.errors import MessageError

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from rich.markdown import Markdown
    from rich.theme import Theme

PART_LINES = 8  # of code that is still being written


@dataclass(frozen=True)
class Block:
    """A piece of Markdown that no longer changes: a whole block, or some items or lines of a longer one.

    text: Its source; of code all lines so far, as their colours depend on those before. skip: Lines of the
    code that were in pieces before. continues: It goes on with the piece before.
    """

    text: str
    skip: int = 0
    continues: bool = False


class BlockStream:
    """Takes streamed text and returns whole blocks (paragraphs, lists, code, tables).

    A block is finished once the next one begins, so a returned block never changes. Of lists and code what is
    finished comes earlier: an item once the next one begins, and lines PART_LINES at a time.
    """

    def __init__(self) -> None:
        self.tail = Block("")
        """The unfinished block, or the rest of it."""

    def push(self, text: str) -> list[Block]:
        """Take more text; return the blocks that it finished."""
        self.tail = replace(self.tail, text=self.tail.text + text)
        if "\n" not in text:
            return []  # only a line break can finish a block
        starts = _block_starts(self.tail.text)
        lines = _lines(self.tail.text)
        blocks = []
        for start, end in pairwise(starts):
            blocks.append(replace(self.tail, text="".join(lines[start:end])))
            self.tail = Block("".join(lines[end:]))
        return [block for block in [*blocks, *self._parts()] if _has_more(block)]

    def finish(self) -> list[Block]:
        """The remaining blocks; the stream is empty afterwards."""
        starts = _block_starts(self.tail.text)
        lines = _lines(self.tail.text)
        texts = ["".join(lines[start:end]) for start, end in pairwise([*starts, len(lines)])]
        blocks = [replace(self.tail, text=texts[0]), *map(Block, texts[1:])] if texts else []
        self.tail = Block("")
        return [block for block in blocks if _has_more(block)]

    def _parts(self) -> list[Block]:
        """The finished items or lines of the unfinished block."""
        text, _, unfinished = self.tail.text.rpartition("\n")
        complete = f"{text}\n"
        tokens = _parser().parse(complete)
        if tokens and tokens[0].type == "fence" and tokens[0].map == [0, complete.count("\n")]:
            count = _code_lines(tokens[0].content)
            if count - self.tail.skip < PART_LINES:
                return []
            part = replace(self.tail, text=complete)
            self.tail = Block(self.tail.text, count, continues=True)
            return [part]
        if not tokens or tokens[0].type not in ("bullet_list_open", "ordered_list_open"):
            return []
        items = [
            token.map[0]
            for token in tokens
            if token.type == "list_item_open" and token.level == 1 and token.map
        ]
        lines = _lines(complete)
        part = replace(self.tail, text="".join(lines[: items[-1]]))
        self.tail = Block(
            "".join(lines[items[-1] :]) + unfinished, continues=self.tail.continues or len(items) > 1
        )
        return [part] if len(items) > 1 else []


def _has_more(block: Block) -> bool:
    """Whether `block` has lines that were not in pieces before."""
    return not block.skip or _code_lines(_parser().parse(block.text)[0].content) > block.skip


def _code_lines(code: str) -> int:
    """Lines of `code` but for blank ones at its end."""
    return len(code.rstrip().split("\n"))


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


def render_markdown(block: Block) -> Markdown:
    """`block` rendered for the terminal: links with their addresses, code in the terminal's own colours."""
    from mlx_qwen3.cli.chat.terminal.markdown_style import ChatMarkdown

    return ChatMarkdown(block.text, block.skip)


def last_code_block(text: str) -> str:
    """The code of the last fenced or indented block in `text`. Raises MessageError if there is none."""
    blocks = [token.content for token in _parser().parse(text) if token.type in ("fence", "code_block")]
    if not blocks:
        raise MessageError("the last answer has no code block")
    return blocks[-1]


def console_theme() -> Theme:
    """Colours that can be read on a dark and on a light background. Rich prints inline code on black."""
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
            "markdown.link": colour,
            "markdown.link_url": f"underline {colour}",
            "markdown.table.border": "bright_black",
            "markdown.table.header": "bold",
            "markdown.hr": "bright_black",
        }
    )


def is_light_terminal() -> bool:
    """Whether the background is light, by COLORFGBG, which rxvt, Konsole and iTerm set."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return background in ("7", "15")
