"""The state of a chat at the terminal, which the slash commands act on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mlx_qwen3.cli.output import error_text, printable
from mlx_qwen3.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from mlx_qwen3.cli.chat.saved_conversations import ConversationStore
    from mlx_qwen3.cli.chat.terminal.text import Printer
    from mlx_qwen3.cli.chat.tools import ChatTools
    from mlx_qwen3.engine import Engine
    from mlx_qwen3.engine.session import Session
    from mlx_qwen3.events import Event

LEAST_ROOM = 30  # columns for the last cell of a row
MIN_TOKENS_TO_SAVE = 256  # a shorter conversation is prefilled again in no time


@dataclass
class ChatState:
    """One chat at the terminal.

    Attributes:
        show_turn: Prints the events of a turn as they arrive.
        name: The name the conversation is saved under; empty until it is saved.
        draft: The text that the next input line starts with.
        attachments: Texts put before the next message.
        is_editing: Whether the next message replaces the latest.
        is_over: Whether the user leaves the chat.
    """

    engine: Engine
    session: Session
    model: str
    console: Console
    printer: Printer
    store: ConversationStore
    tools: ChatTools
    show_turn: Callable[[Iterator[Event]], None]
    name: str = ""
    draft: str = ""
    attachments: list[str] = field(default_factory=list)
    is_editing: bool = False
    is_over: bool = False
    _has_told_of_cache: bool = False

    @property
    def window(self) -> int | None:
        """The size of the sliding window in tokens; None without a window."""
        return self.engine.cache_config.max_size

    @property
    def cached_tokens(self) -> int:
        """Tokens of the conversation in the KV cache."""
        return min(self.session.tokens, self.window or self.session.tokens)

    @property
    def free_tokens(self) -> int | None:
        """Tokens that the context still has room for; None with a sliding window, which never is full."""
        return None if self.window else max(self.session.context - self.session.tokens, 0)

    @property
    def context_label(self) -> str:
        """The size of the window, or of the context, for a person."""
        if self.window:
            return f"window {self.window:,}"
        limit = " that there is memory for; --kv-bits 8 holds more" if self.engine.plan.is_limited else ""
        return f"context {self.engine.context:,}{limit}"

    def print_line(self, text: str) -> None:
        """Print a line from the chat itself, dimmed."""
        self.console.print(text, style="dim")

    def print_heading(self, text: str) -> None:
        """Print the title of a group of rows."""
        self.console.print(Text(f"\n{text}", style="bold"))

    def print_error(self, text: str) -> None:
        """Print an error in one line."""
        self.console.print(f"error: {error_text(text)}", style="red")

    def print_rows(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Print rows in aligned columns, of which the last wraps.

        Where a narrow terminal has no room for that, each row takes two lines: its first cell, and the rest.
        """
        cells = [[Text(printable(cell)) for cell in row] for row in rows]
        if not cells:
            return
        for first, *_ in cells:
            first.stylize("cyan")
        before_last = [max(text.cell_len for text in column) for column in zip(*cells, strict=True)][:-1]
        room = self.console.width - sum(width + 2 for width in before_last) - 2
        if room < LEAST_ROOM and any(row[-1].cell_len > room for row in cells):
            self._print_narrow(cells)
            return
        table = Table.grid(padding=(0, 2), pad_edge=False)
        for row in cells:
            table.add_row("", *row)
        for column in table.columns[:-1]:
            column.no_wrap = True
        table.columns[-1].overflow = "fold"
        self.console.print(table)

    def _print_narrow(self, cells: list[list[Text]]) -> None:
        """Print each row's first cell, and its others below it; a number stands beside them."""
        are_numbers = all(first.cell_len <= 2 for first, *_ in cells)
        for first, *rest in cells:
            first.rstrip()
            others = Text(" · ").join(text for text in rest if text.plain.strip())
            if not are_numbers:
                self.console.print(Padding(first, (0, 0, 0, 2)))
                first = Text()
            table = Table.grid(padding=(0, 1), pad_edge=False)
            table.add_column(width=4)
            table.add_column(overflow="fold")
            table.add_row(Text.assemble("  ", first), others)
            self.console.print(table)

    def take_draft(self) -> str:
        """Return the draft and clear it."""
        draft, self.draft = self.draft, ""
        return draft

    def save(self) -> None:
        """Save the conversation. Raises MessageError if that fails."""
        before, self.name = self.name, self.store.save(self.name, self.session.save)
        if before not in ("", self.name):
            self.print_line(f"another chat has saved {before}; this one goes on as {self.name}")
        self.store.delete_oldest()

    def save_cache(self) -> None:
        """Save the KV cache of a long conversation before the user leaves it."""
        caches = self.store.caches
        if not self.store.saves_caches:
            return
        is_small = self.session.cache_info.saved_nbytes <= caches.limit
        if self.name and self.session.tokens >= MIN_TOKENS_TO_SAVE and is_small:
            try:
                self.session.save_cache(caches.path(self.name))
                self._tell_of_cache()
            except CacheError as error:
                self.print_line(f"the KV cache is not saved: {error}")
            caches.evict()

    def _tell_of_cache(self) -> None:
        """Say, once in a chat, that the KV cache was saved."""
        if not self._has_told_of_cache:
            self._has_told_of_cache = True
            size = self.session.cache_info.saved_nbytes / 1e6
            self.print_line(
                f"the KV cache is kept on disk for --resume, {size:,.0f} MB; --no-save-caches prevents it"
            )

    def load_cache(self) -> None:
        """Load the KV cache that was saved with the conversation, if there is one."""
        try:
            if path := self.store.caches.find(self.name):
                self.session.load_cache(path)
        except CacheError as error:
            self.print_line(str(error))

    def switch_engine(self, engine: Engine) -> None:
        """Continue the conversation on another engine."""
        self.session = self.session.move_to(engine)
        self.engine = engine

    def prefill_ahead(self) -> None:
        """Prefill the certain start of the next message while the user types the rest."""
        self.session.prepare("".join(f"{text}\n\n" for text in self.attachments))
