"""How Markdown looks in the chat: quiet headings, code behind a bar, formulas left as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from markdown_it import MarkdownIt
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement, TableElement
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from mlx_qwen3.cli.chat.terminal.turns import Barred

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token
    from rich.console import Console, ConsoleOptions, RenderResult

CODE_BAR, CODE_BAR_STYLE = "│ ", Style(color="bright_black")
TAB_SIZE = 4
TASKS = {"[ ] ": "☐ ", "[x] ": "☑ ", "[X] ": "☑ "}
MATH = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}


class QuietHeading(Heading):
    """A heading at the left."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class BarredCode(CodeBlock):
    """A block of code with its language, behind a bar. skip: lines at its start that are not shown."""

    skip = 0

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> BarredCode:
        element = super().create(markdown, token)
        assert isinstance(element, BarredCode)
        element.skip = markdown.skip if isinstance(markdown, ChatMarkdown) else 0
        return element

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip().expandtabs(TAB_SIZE)
        if self.lexer_name != "text" and not self.skip:
            yield Barred(Text(self.lexer_name, style="bright_black italic"), CODE_BAR, CODE_BAR_STYLE)
        syntax = Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, background_color="default")
        lines = syntax.highlight(code).split("\n")[: code.count("\n") + 1]
        if shown := lines[self.skip :]:
            yield Barred(Text("\n").join(shown), CODE_BAR, CODE_BAR_STYLE)


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

    def __init__(self, text: str, code_theme: str, skip: int = 0):
        """skip: lines of code that are not shown, if `text` is a block of code."""
        self.skip = skip
        super().__init__(text, code_theme=code_theme, hyperlinks=False)
        self.parsed = make_parser().parse(text)
        _mark_tasks(self.parsed)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Without the blank lines that Rich has before some blocks and after others."""
        lines = list(
            Segment.split_lines(cast("Iterable[Segment]", super().__rich_console__(console, options)))
        )
        while lines and _is_blank(lines[0]):
            del lines[0]
        while lines and _is_blank(lines[-1]):
            del lines[-1]
        for line in lines:
            yield from line
            yield Segment.line()


def _is_blank(line: Iterable[Segment]) -> bool:
    return not "".join(segment.text for segment in line).strip()


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
