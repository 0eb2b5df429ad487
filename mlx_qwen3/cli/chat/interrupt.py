"""Ctrl-C stops the turn, not the program; a second one, should the first not be heard, stops both."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def cancel_on_interrupt(cancel: Callable[[], object]) -> Iterator[None]:
    """Within the block, SIGINT calls `cancel`, which stops a turn."""
    pressed = 0

    def handle(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the signal API
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            raise KeyboardInterrupt
        cancel()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
