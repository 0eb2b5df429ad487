"""The terminal's own behaviour during a chat: key echo, Ctrl-C as a way to stop a turn, and being ended."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def quiet_terminal() -> Iterator[bool]:
    """Within the block, keys are not echoed and not held back until Enter. Ctrl-C still interrupts.

    Keys typed meanwhile stay, unchanged, for the next reader of stdin. Yields whether the input had ended
    before: Ctrl-D was pressed, or a program that types has nothing to type.
    """
    if not sys.stdin.isatty():
        yield False
        return
    import termios

    has_ended = _has_ended()
    saved = termios.tcgetattr(sys.stdin)
    quiet = list(saved)
    quiet[0] &= ~termios.ICRNL
    quiet[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    try:
        yield has_ended
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)


def _has_ended() -> bool:
    """Whether a Ctrl-D comes next. The terminal forgets it once it no longer waits for whole lines."""
    import fcntl
    import select
    import termios

    if not select.select([sys.stdin], [], [], 0)[0]:
        return False
    waiting = fcntl.ioctl(sys.stdin, termios.FIONREAD, b"\0\0\0\0")
    return not int.from_bytes(waiting, sys.byteorder)


@contextmanager
def ended_by_signals(end_prompt: Callable[[], bool]) -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP end the program as an exit does, which restores the terminal.

    end_prompt: ends a prompt that is being read, and returns whether there was one.
    """
    received = 0

    def leave(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the signal API
        nonlocal received
        received = signum
        if not end_prompt():
            raise SystemExit(128 + signum)

    previous = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise SystemExit(128 + received)


@contextmanager
def cancel_on_interrupt(cancel: Callable[[], object]) -> Iterator[None]:
    """Within the block, the first Ctrl-C (SIGINT) calls `cancel`; later ones raise KeyboardInterrupt."""
    count = 0

    def handle(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the signal API
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt
        cancel()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
