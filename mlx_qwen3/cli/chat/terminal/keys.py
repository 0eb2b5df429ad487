"""Reads keys while a turn runs: some act at once, the others are kept for the next prompt."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType

from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import Output
from prompt_toolkit.utils import is_dumb_terminal

ESCAPE_TIMEOUT = 0.1  # seconds; an Escape with no byte after it is the Escape key by itself


class KeyWatcher:
    """In a `with` block, calls the function bound to each key. Other keys are kept for the next prompt.

    source, output: the input and output that the prompts use.
    """

    def __init__(self, source: Input, output: Output, bindings: Mapping[str, Callable[[], object]]):
        self._source = source
        self._output = output
        self._bindings = bindings
        self._thread: threading.Thread | None = None

    def __enter__(self) -> KeyWatcher:
        if sys.stdin.isatty():
            self._handle(get_typeahead(self._source))  # pressed early: the last prompt read them
            self._wake, self._waker = os.pipe()
            self._thread = threading.Thread(target=self._watch, name="mlx_qwen3 keys", daemon=True)
            self._thread.start()
            self._set_bracketed_paste(True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if self._thread is None:
            return
        os.close(self._waker)
        self._thread.join()
        os.close(self._wake)
        self._thread = None
        self._set_bracketed_paste(False)

    @contextmanager
    def paused(self) -> Iterator[list[KeyPress]]:
        """Within the block, other code reads the keys. It gets none that were pressed before.

        Yields the keys that the next prompt gets after the block, to which the other code may add.
        """
        was_watching = self._thread is not None
        self.__exit__()
        early = get_typeahead(self._source)
        try:
            yield early
        finally:
            store_typeahead(self._source, [*early, *get_typeahead(self._source)])
            if was_watching:
                self.__enter__()

    def _set_bracketed_paste(self, is_on: bool) -> None:
        """Bracketed paste keeps a pasted text together; without it, each of its lines would be sent."""
        if is_dumb_terminal():
            return
        if is_on:
            self._output.enable_bracketed_paste()
        else:
            self._output.disable_bracketed_paste()
        self._output.flush()

    def _watch(self) -> None:
        keyboard, timeout = self._source.fileno(), None
        while True:
            ready, _, _ = select.select([keyboard, self._wake], [], [], timeout)
            if self._wake in ready:
                return
            pressed = self._source.read_keys() if ready else self._source.flush_keys()
            timeout = ESCAPE_TIMEOUT if ready else None
            self._handle(pressed)
            if self._source.closed:
                return

    def _handle(self, pressed: Sequence[KeyPress]) -> None:
        for key in pressed:
            name = key.key.value if isinstance(key.key, Keys) else key.key
            # Escape together with other keys means Alt and a key.
            if name in self._bindings and (name != "escape" or len(pressed) == 1):
                self._bindings[name]()
            else:
                store_typeahead(self._source, [key])
