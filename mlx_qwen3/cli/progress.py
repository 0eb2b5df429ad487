"""Progress bars on stderr, so that they do not mix with the output; only if stderr is a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlx_qwen3.cli.output import write_note

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as Bars
    from rich.progress import Task

    from mlx_qwen3.conversion import Progress
    from mlx_qwen3.events import LoadProgress

DOWNLOADING = "downloading"


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Rich's bars for work counted in bytes. They disappear at the end.

    Where Ctrl-C stops a download, a line says that the same command goes on with it.
    """
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
        try:
            yield bars
        except KeyboardInterrupt:
            bars.stop()
            if (note := _stopped(bars.tasks)) is not None:
                write_note(note)
            raise


def _stopped(tasks: Iterable[Task]) -> str | None:
    """What to say of a download that was stopped, if one was under way."""
    for task in tasks:
        if task.description == DOWNLOADING and not task.finished and task.total:
            unit, name = (1e9, "GB") if task.total >= 1e9 else (1e6, "MB")
            here = f"{task.completed / unit:.1f} of {task.total / unit:.1f} {name} are here"
            return f"download stopped, {here}; the same command goes on from there"
    return None


class LoadBar:
    """One bar for an engine on its way, called with its LoadProgress: the download, then the loading."""

    def __init__(self, bars: Bars, model: str):
        self._bars, self._model = bars, model
        self._download = DownloadBar(bars)
        self._loading: Any = None

    def show_loading(self) -> None:
        """Show a bar for the loading from now on, unless the model is downloaded."""
        if self._loading is None and self._download.is_done:
            self._loading = self._bars.add_task(f"loading {self._model}", total=None)

    def __call__(self, progress: LoadProgress) -> None:
        if progress.stage == "downloading":
            self._download(progress.done, progress.total)
        elif self._loading is not None or self._download.was_shown:
            self._download.hide()
            self.show_loading()
            self._bars.update(self._loading, completed=progress.done, total=progress.total)


class DownloadBar:
    """Progress of a download, called with the downloaded and the total bytes."""

    def __init__(self, bars: Bars):
        self._bars = bars
        self._task: Any = None
        self.is_done = True

    @property
    def was_shown(self) -> bool:
        """Whether anything was downloaded."""
        return self._task is not None

    def hide(self) -> None:
        """Have the bar disappear."""
        if self._task is not None:
            self._bars.update(self._task, visible=False)

    def __call__(self, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._bars.add_task(DOWNLOADING, total=total)
        self.is_done = done >= total
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
