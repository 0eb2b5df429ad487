"""Progress bars on stderr, so that they do not mix with the output; only if stderr is a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as Bars

    from mlx_qwen3.conversion import Progress


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Rich's bars for work counted in bytes. They disappear at the end."""
    from rich import progress
    from rich.text import Text

    from mlx_qwen3.cli.console import SafeConsole

    class ByteColumn(progress.ProgressColumn):
        """A column that is empty for a task without a known total."""

        def __init__(self, column: progress.ProgressColumn):
            super().__init__()
            self._column = column

        def render(self, task: progress.Task) -> RenderableType:
            return self._column.render(task) if task.total else Text()

    console = SafeConsole(stderr=True)
    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        ByteColumn(progress.DownloadColumn()),
        ByteColumn(progress.TransferSpeedColumn()),
        ByteColumn(progress.TimeRemainingColumn()),
        console=console,
        transient=True,
        disable=not console.is_terminal or console.is_dumb_terminal,
    ) as bars:
        yield bars


class DownloadBar:
    """Progress of a download, called with the downloaded and the total bytes."""

    def __init__(self, bars: Bars):
        self._bars = bars
        self._task: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._bars.add_task("downloading", total=total)
        self._bars.update(self._task, completed=done, total=total)


class StageBars:
    """One bar for each stage of a conversion: the current tensor, and the bytes read of the total."""

    def __init__(self, bars: Bars):
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, progress: Progress) -> None:
        if progress.stage not in self._tasks:
            self._tasks[progress.stage] = self._bars.add_task(progress.stage, total=progress.total_bytes)
        name = progress.tensor.removeprefix("model.").removesuffix(".weight")
        self._bars.update(
            self._tasks[progress.stage],
            completed=progress.done_bytes,
            description=f"{progress.stage} {name}".rstrip(),
        )
