"""How Markdown looks in the chat: quiet headings, code behind a bar, formulas left as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from markdown_it import MarkdownIt
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement, TableElement
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from mlx_qwen3.cli.chat.terminal.turns import Barred

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token
    from rich.console import Console, ConsoleOptions, RenderResult

CODE_BAR, CODE_BAR_STYLE = "│ ", Style(color="bright_black")
TASKS = {"[ ] ": "☐ ", "[x] ": "☑ ", "[X] ": "☑ "}
MATH = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}


class QuietHeading(Heading):
    """A heading at the left."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class BarredCode(CodeBlock):
    """A block of code with its language, behind a bar."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        if self.lexer_name != "text":
            yield Barred(Text(self.lexer_name, style="bright_black italic"), CODE_BAR, CODE_BAR_STYLE)
        syntax = Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, background_color="default")
        yield Barred(syntax, CODE_BAR, CODE_BAR_STYLE)


class TightTable(TableElement):
    """A table without blank lines around it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                table.show_edge = False
            yield table


class ChatMarkdown(Markdown):
    """Markdown as the chat shows it."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": QuietHeading,
        "fence": BarredCode,
        "code_block": BarredCode,
        "table_open": TightTable,
    }

    def __init__(self, text: str, code_theme: str):
        super().__init__(text, code_theme=code_theme, hyperlinks=False)
        self.parsed = make_parser().parse(text)
        _mark_tasks(self.parsed)


def make_parser() -> MarkdownIt:
    """CommonMark with tables and strikethrough. TeX is text: CommonMark would take its backslashes away."""
    parser = MarkdownIt().enable("table").enable("strikethrough")
    parser.inline.ruler.before("escape", "math", _math)
    return parser


def _math(state: StateInline, silent: bool) -> bool:
    r"""Keeps \(...\), \[...\], $$...$$ and $...$ as they are. A rule of the parser."""
    source, start = state.src, state.pos
    end = _math_end(source, start, state.posMax)
    if end is None:
        return False
    if not silent:
        state.push("text", "", 0).content = source[start:end]
    state.pos = end
    return True


def _math_end(source: str, start: int, limit: int) -> int | None:
    """Where the formula that begins at `start` has ended; None if none begins there."""
    opening = source[start : start + 2]
    if closing := MATH.get(opening):
        found = source.find(closing, start + 2, limit)
        return found + 2 if found > start + 2 else None
    if not opening.startswith("$") or opening[1:].strip() == "":
        return None
    found = source.find("$", start + 1, limit)
    # As in pandoc: prices such as $5 and $10 are no formula.
    if found < 0 or source[found - 1].isspace() or source[found + 1 : found + 2].isdecimal():
        return None
    return found + 1


def _mark_tasks(tokens: Sequence[Token]) -> None:
    """Show the items of task lists with boxes."""
    for before, token in zip(tokens, tokens[2:], strict=False):
        if before.type == "list_item_open" and token.type == "inline" and token.children:
            first = token.children[0]
            if (box := TASKS.get(first.content[:4])) is not None:
                first.content = box + first.content[4:]
