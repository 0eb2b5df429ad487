"""Progress bars on stderr, where they disturb no output, and only where somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Rich's bars for bytes, gone when the work is done; silent unless stderr is a terminal."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        yield bars


class DownloadBar:
    """Shows what comes from the hub; called with the bytes here and the bytes there are."""

    def __init__(self, bars: Bars):
        self._bars = bars
        self._task: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._bars.add_task("downloading", total=total)
        self._bars.update(self._task, completed=done, total=total)
