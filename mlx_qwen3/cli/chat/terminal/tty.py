"""The terminal's own behaviour during a chat: key echo, Ctrl-C to stop a turn, Ctrl-Z, and being ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_DELAY = 0.1  # seconds; the other threads take the signal well within


def stop_program() -> None:
    """Stop as the shell's Ctrl-Z does; returns once the program goes on, with the terminal its own again.

    The signal may reach another thread first. Without a wait, this one could go on for a moment and set the
    terminal before the shell does, and the program would go on with what the shell has set.
    """
    os.killpg(os.getpgrp(), signal.SIGTSTP)
    time.sleep(STOP_DELAY)
    while not _is_in_foreground():  # `bg` lets it go on, without the terminal
        time.sleep(STOP_DELAY)


def _is_in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # no terminal, or one without jobs
        return True


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
