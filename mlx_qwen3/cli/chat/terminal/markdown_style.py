"""How Markdown looks in the chat: quiet headings, code behind a bar, formulas left as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from markdown_it import MarkdownIt
from pygments import token as tokens  # type: ignore[import-untyped]
from rich.markdown import (
    BlockQuote,
    CodeBlock,
    Heading,
    HorizontalRule,
    ListItem,
    Markdown,
    MarkdownElement,
    TableElement,
)
from rich.segment import Segment
from rich.style import Style
from rich.styled import Styled
from rich.syntax import ANSISyntaxTheme, Syntax
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
RULE_WIDTH = 40  # a line across the window would wrap when that becomes narrower
# Colours that can be read on a dark and on a light background: few terminals say which one they have.
CODE_THEME = ANSISyntaxTheme(
    {
        tokens.Token: Style(),
        tokens.Comment: Style(color="bright_black"),
        tokens.Comment.Preproc: Style(color="magenta"),
        tokens.Keyword: Style(color="magenta"),
        tokens.Keyword.Type: Style(color="cyan"),
        tokens.Keyword.Constant: Style(color="cyan"),
        tokens.Operator.Word: Style(color="magenta"),
        tokens.Name.Builtin: Style(color="cyan"),
        tokens.Name.Decorator: Style(color="magenta"),
        tokens.Name.Function: Style(bold=True),
        tokens.Name.Class: Style(bold=True),
        tokens.Name.Tag: Style(color="magenta"),
        tokens.Name.Attribute: Style(color="cyan"),
        tokens.String: Style(color="green"),
        tokens.Number: Style(color="cyan"),
        tokens.Generic.Deleted: Style(color="red"),
        tokens.Generic.Inserted: Style(color="green"),
        tokens.Generic.Heading: Style(bold=True),
        tokens.Generic.Emph: Style(italic=True),
        tokens.Generic.Strong: Style(bold=True),
        tokens.Error: Style(color="red"),
    }
)
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
        syntax = Syntax(code, self.lexer_name, theme=CODE_THEME, word_wrap=True, background_color="default")
        lines = syntax.highlight(code).split("\n")[: code.count("\n") + 1]
        if shown := lines[self.skip :]:
            yield Barred(Text("\n").join(shown), CODE_BAR, CODE_BAR_STYLE)


class BarredQuote(BlockQuote):
    """A quotation, behind a quiet bar; a coloured one marks what the user said."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Barred(Styled(self.elements, self.style), CODE_BAR, CODE_BAR_STYLE)


class ShortRule(HorizontalRule):
    """A short line between two sections."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("─" * min(RULE_WIDTH, options.max_width), style="markdown.hr")


class MarkedItem(ListItem):
    """An item of a list: a task with its box alone, a number with a dot as it was written."""

    def render_bullet(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bullet = "" if self._is_task() else "• "
        return self._render(console, options, f" {bullet}", "markdown.item.bullet", indent=3)

    def render_number(
        self, console: Console, options: ConsoleOptions, number: int, last_number: int
    ) -> RenderResult:
        width = len(str(last_number - 1)) + 3
        return self._render(console, options, f"{number}. ".rjust(width), "markdown.item.number", width)

    def _is_task(self) -> bool:
        first = [str(getattr(element, "text", "")) for element in self.elements._renderables[:1]]
        return bool(first) and first[0].startswith(tuple(TASKS.values()))

    def _render(
        self, console: Console, options: ConsoleOptions, mark: str, style: str, indent: int
    ) -> RenderResult:
        inner = options.update(width=max(options.max_width - indent, 1))
        mark_style = console.get_style(style)
        lines = console.render_lines(self.elements, inner, style=self.style, pad=False)
        for number, line in enumerate(lines):
            # The box of a task stands where a bullet does, and what is wrapped goes on below its text.
            yield Segment(" " * indent, mark_style) if number else Segment(mark, mark_style)
            yield from line
            yield Segment.line()


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
        "blockquote_open": BarredQuote,
        "hr": ShortRule,
        "list_item_open": MarkedItem,
        "table_open": TightTable,
    }

    def __init__(self, text: str, skip: int = 0):
        """skip: lines of code that are not shown, if `text` is a block of code."""
        self.skip = skip
        super().__init__(text, hyperlinks=False)
        self.parsed = make_parser().parse(text)
        _mark_tasks(self.parsed)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Without the blank lines that Rich has around some blocks, and the spaces that fill its lines.

        In a terminal that finds some characters wider, and in a window that becomes narrower, those spaces
        would wrap into a blank line.
        """
        lines = list(
            Segment.split_lines(cast("Iterable[Segment]", super().__rich_console__(console, options)))
        )
        while lines and _is_blank(lines[0]):
            del lines[0]
        while lines and _is_blank(lines[-1]):
            del lines[-1]
        for line in lines:
            yield from _without_padding(line)
            yield Segment.line()


def _without_padding(line: list[Segment]) -> list[Segment]:
    """`line` without the spaces at its end, but for those of a coloured ground."""
    line = list(line)
    while line and (line[-1].style is None or line[-1].style.bgcolor is None):
        text, style, control = line.pop()
        if text := text.rstrip(" "):
            return [*line, Segment(text, style, control)]
    return line


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
