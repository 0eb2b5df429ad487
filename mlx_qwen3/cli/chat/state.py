"""What a chat at the terminal consists of, for its commands to act on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from mlx_qwen3.cli.chat.terminal.printers import printable
from mlx_qwen3.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from mlx_qwen3.cli.chat.saved_conversations import Store
    from mlx_qwen3.cli.chat.terminal.printers import Printer
    from mlx_qwen3.cli.chat.tools import ChatTools
    from mlx_qwen3.engine import Engine
    from mlx_qwen3.engine.session import Session
    from mlx_qwen3.events import Event


WORTH_SAVING = 256  # tokens; fewer are read again in no time


@dataclass
class ChatState:
    """play: shows a turn. name: what the conversation is saved under; empty until it is saved.

    draft: what the next prompt starts with. attachments: texts that go before the next message.
    is_editing: whether the next message takes the place of the latest.
    """

    engine: Engine
    session: Session
    model: str
    console: Console
    printer: Printer
    store: Store
    tools: ChatTools
    play: Callable[[Iterator[Event]], None]
    name: str = ""
    draft: str = ""
    attachments: list[str] = field(default_factory=list)
    is_editing: bool = False
    is_over: bool = False

    @property
    def window(self) -> int | None:
        """The most tokens the cache holds, the first and the latest; None where it holds all."""
        return self.engine.cache_options.get("max_size")

    @property
    def tokens(self) -> int:
        """Tokens of the conversation that are in the cache."""
        return min(self.session.tokens, self.window or self.session.tokens)

    @property
    def room_shown(self) -> str:
        """What the model can hold of a conversation, for a person."""
        if self.window:
            return f"window {self.window:,}"
        limit = " that there is memory for; --kv-bits 8 holds more" if self.engine.plan.is_limited else ""
        return f"context {self.engine.context:,}{limit}"

    def say(self, text: str) -> None:
        """Print a line of the chat's own."""
        self.console.print(text, style="dim", markup=False, highlight=False)

    def say_rows(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Print rows in columns; the last column wraps, or is cut where the others leave it no room."""
        table = Table.grid(padding=(0, 2), pad_edge=False)
        for row in rows:
            table.add_row("", *(Text(printable(cell)) for cell in row), style="dim")
        for column in table.columns[:-1]:
            column.no_wrap = True
        self.console.print(table)

    def take_draft(self) -> str:
        """What the input line starts with, once."""
        draft, self.draft = self.draft, ""
        return draft

    def save(self) -> None:
        """Save the conversation. Raises MessageError if that fails."""
        self.name = self.name or self.store.new_name()
        self.session.save(self.store.path(self.name))
        self.store.make_room()

    def park(self) -> None:
        """Save what the model has read of a long conversation, which is left now."""
        caches = self.store.caches
        is_small = self.session.saved_cache_bytes <= caches.limit
        if self.name and self.session.tokens >= WORTH_SAVING and is_small:
            try:
                self.session.save_cache(caches.path(self.name))
            except CacheError as error:
                self.say(f"what was read is not saved: {error}")
            caches.make_room()

    def resume(self) -> None:
        """Take what was saved so."""
        try:
            if path := self.store.caches.use(self.name):
                self.session.load_cache(path)
        except CacheError as error:
            self.say(str(error))

    def use(self, engine: Engine) -> None:
        """Go on with the conversation on another engine."""
        self.session = self.session.move_to(engine)
        self.engine = engine

    def prepare(self) -> None:
        """Have the engine read what the next message starts with, while its rest is typed."""
        self.session.prepare("".join(f"{text}\n\n" for text in self.attachments))
