"""The input line while a turn runs: it can be edited, and Enter keeps a message until the turn has ended.

A prompt of the toolkit reads the keys, on a thread of its own, and draws nothing; the printer of the turn
draws the line below the turn.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.output import DummyOutput, Output
from prompt_toolkit.utils import is_dumb_terminal

from mlx_qwen3.cli.chat.terminal.pasted import Pasted, is_complete
from mlx_qwen3.cli.chat.terminal.tty import stop_program

if TYPE_CHECKING:
    from prompt_toolkit.document import Document

ESCAPE_TIMEOUT = 0.1  # seconds; an Escape with no byte after it is the Escape key by itself


class TypeAhead:
    """In a `with` block, the input line of a running turn.

    Attributes:
        draft: The text of the line, when the block begins and after it has ended.
        queued: Messages that were sent meanwhile, in order.
        wants_to_leave: Whether Ctrl-D was pressed on an empty line.
    """

    def __init__(
        self,
        source: Input,
        output: Output,
        history: History,
        pasted: Pasted,
        keys: Mapping[str, Callable[[], object]],
    ):
        """source, output, history, pasted: those of the prompts. keys: what some keys do at once."""
        self.draft = ""
        self.queued: list[str] = []
        self.wants_to_leave = False
        self.suspend: Callable[[Callable[[], object]], object] = lambda stop: stop()
        """Has `stop` called while nothing is drawn."""
        self._source, self._output, self._history = source, output, history
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: PromptSession[str] = PromptSession(
            input=source,
            output=DummyOutput(),
            history=history,
            multiline=True,
            key_bindings=self._bindings(pasted, keys),
        )
        self._session.app.ttimeoutlen = self._session.app.timeoutlen = ESCAPE_TIMEOUT

    @property
    def is_running(self) -> bool:
        """Whether keys are being read."""
        return self._thread is not None

    @property
    def document(self) -> Document:
        """The text of the line and the place of its cursor."""
        return self._session.default_buffer.document

    def take_queued(self) -> str | None:
        """The first message that was sent meanwhile; None if there is none."""
        return self.queued.pop(0) if self.queued else None

    def unqueue(self) -> None:
        """Put the messages that were sent meanwhile back into the line. The turn was stopped."""
        self.draft = "\n".join(filter(None, [*self.queued, self.draft]))
        self.queued.clear()

    def __enter__(self) -> TypeAhead:
        if sys.stdin.isatty():
            self._set_bracketed_paste(True)
            is_running = threading.Event()
            self._thread = threading.Thread(
                target=lambda: asyncio.run(self._edit(is_running)), name="mlx_qwen3 keys", daemon=True
            )
            self._thread.start()
            is_running.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if self._thread is None:
            return
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)
        self._thread.join()
        self._thread = self._loop = None
        self._set_bracketed_paste(False)

    @contextmanager
    def paused(self) -> Iterator[list[KeyPress]]:
        """Within the block, other code reads the keys. It gets none that were pressed before.

        Yields the keys that the line gets after the block, to which the other code may add.
        """
        was_running = self._thread is not None
        self.__exit__()
        early = get_typeahead(self._source)
        try:
            yield early
        finally:
            store_typeahead(self._source, [*early, *get_typeahead(self._source)])
            if was_running:
                self.__enter__()

    async def _edit(self, is_running: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self._session.prompt_async(
                default=self.draft,
                pre_run=is_running.set,
                handle_sigint=False,
                set_exception_handler=False,
            )
        finally:
            self.draft = self.document.text
            is_running.set()

    def _end(self) -> None:
        app = self._session.app
        if app.is_running and not app.is_done:
            app.exit(result="")

    def _set_bracketed_paste(self, is_on: bool) -> None:
        """Bracketed paste keeps a pasted text together; without it, each of its lines would be sent."""
        if is_dumb_terminal():
            return
        if is_on:
            self._output.enable_bracketed_paste()
        else:
            self._output.disable_bracketed_paste()
        self._output.flush()

    def _bindings(self, pasted: Pasted, keys: Mapping[str, Callable[[], object]]) -> KeyBindings:
        bindings = KeyBindings()
        for name, function in keys.items():
            bindings.add(name)(_calling(function))
        is_empty = Condition(lambda: not get_app().current_buffer.text)
        bindings.add("c-d", filter=is_empty)(_calling(self._leave))
        # These need the screen, which the turn uses.
        for name in ("c-r", "c-s", "c-l"):
            bindings.add(name)(_calling(lambda: None))

        @bindings.add("enter")
        def send(event: KeyPressEvent) -> None:
            text = pasted.expand(event.current_buffer.text)
            if not is_complete(text):
                event.current_buffer.insert_text("\n")
                return
            if text.strip():
                self._history.append_string(text)
                self.queued.append(text)
            event.current_buffer.reset()

        @bindings.add("escape", "enter")
        @bindings.add("c-j")
        def new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @bindings.add("c-z")
        def stop(event: KeyPressEvent) -> None:
            self.suspend(lambda: self._stop_program(event.app))

        pasted.bind(bindings)
        return bindings

    def _leave(self) -> None:
        self.wants_to_leave = True

    def _stop_program(self, app: Any) -> None:
        """Stop as the shell's Ctrl-Z does; returns when the program is continued."""
        self._set_bracketed_paste(False)
        with app.input.detach(), app.input.cooked_mode():
            stop_program()
        self._set_bracketed_paste(True)


def _calling(function: Callable[[], object]) -> Callable[[KeyPressEvent], None]:
    def handler(event: KeyPressEvent) -> None:  # noqa: ARG001  # the toolkit's API
        function()

    return handler
