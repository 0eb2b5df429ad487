"""Keys pressed while the model speaks: a few are heard at once, the others wait for the next prompt."""

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

SECONDS_TO_TELL_ESCAPE = 0.1  # from the first byte of another key


class KeyWatcher:
    """Within the block, calls what a key is bound to; what else is typed goes to the next prompt."""

    def __init__(self, source: Input, output: Output, bindings: Mapping[str, Callable[[], object]]):
        """source and output: those of the prompts."""
        self._source = source
        self._output = output
        self._bindings = bindings
        self._thread: threading.Thread | None = None

    def __enter__(self) -> KeyWatcher:
        if sys.stdin.isatty():
            self._hear(get_typeahead(self._source))  # pressed so soon that the prompt got them
            self._wake, self._waker = os.pipe()
            self._thread = threading.Thread(target=self._watch, name="mlx_qwen3 keys", daemon=True)
            self._thread.start()
            self._keep_pastes_whole(True)
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
        self._keep_pastes_whole(False)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Somebody else reads the keys for a while."""
        was_watching = self._thread is not None
        self.__exit__()
        try:
            yield
        finally:
            if was_watching:
                self.__enter__()

    def _keep_pastes_whole(self, keep: bool) -> None:
        """Or the lines of a pasted text would each be sent."""
        if not is_dumb_terminal():
            self._output.enable_bracketed_paste() if keep else self._output.disable_bracketed_paste()
            self._output.flush()

    def _watch(self) -> None:
        keyboard, timeout = self._source.fileno(), None
        while True:
            ready, _, _ = select.select([keyboard, self._wake], [], [], timeout)
            if self._wake in ready:
                return
            pressed = self._source.read_keys() if ready else self._source.flush_keys()
            timeout = SECONDS_TO_TELL_ESCAPE if ready else None
            self._hear(pressed)
            if self._source.closed:
                return

    def _hear(self, pressed: Sequence[KeyPress]) -> None:
        for key in pressed:
            name = key.key.value if isinstance(key.key, Keys) else key.key
            # With others, Escape is Alt and a key, and no key by itself.
            if name in self._bindings and (name != "escape" or len(pressed) == 1):
                self._bindings[name]()
            else:
                store_typeahead(self._source, [key])
