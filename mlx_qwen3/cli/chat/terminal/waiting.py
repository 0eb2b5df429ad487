"""What is shown while there is nothing to read yet: a spinner, and how far the prompt has been read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mlx_qwen3.events import PromptProgress

SECONDS_BEFORE_SHOWN = 0.3  # what is quicker needs no spinner
SPINNER, TURNS_PER_SECOND = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", 10
BAR_WIDTH = 20
# Prompts longer than this show how far the model has read.
LONG_PROMPT = 512


class Waiting:
    """Made when the waiting begins."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._progress: PromptProgress | None = None

    def read(self, progress: PromptProgress) -> None:
        """The model has read so much of the prompt."""
        self._progress = progress

    def shown(self) -> RenderableType | None:
        """What to draw now; nothing in the first moment."""
        seconds = time.monotonic() - self._since
        if seconds < SECONDS_BEFORE_SHOWN:
            return None
        turn = SPINNER[int(seconds * TURNS_PER_SECOND) % len(SPINNER)]
        return Text(f"{turn} {self._what(seconds)}", style="dim", no_wrap=True, overflow="ellipsis")

    def _what(self, seconds: float) -> str:
        progress = self._progress
        if progress is None or progress.total < LONG_PROMPT or progress.processed >= progress.total - 1:
            return f"{seconds:.0f} s"
        done = progress.processed * BAR_WIDTH // progress.total
        bar = "━" * done + "╌" * (BAR_WIDTH - done)
        left = f" · {_time_left(seconds, progress):.0f} s left" if progress.processed else ""
        return f"{bar} reading {progress.processed:,} of {progress.total:,} tokens{left}"


def _time_left(seconds: float, progress: PromptProgress) -> float:
    return seconds * (progress.total - progress.processed) / progress.processed
