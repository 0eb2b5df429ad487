"""Shown while a turn has no output yet: a spinner, and the progress of a long prefill."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mlx_qwen3.events import PromptProgress

SHOW_DELAY = 0.3  # seconds; a shorter wait needs no spinner
SPINNER, FRAMES_PER_SECOND = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", 10
BAR_WIDTH = 20
# Prompts of at least this many new tokens get a progress bar.
LONG_PROMPT = 512


class WaitIndicator:
    """A spinner, or a progress bar for a long prompt. The wait starts when it is made."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._progress: PromptProgress | None = None

    def update(self, progress: PromptProgress) -> None:
        """Note how far the prefill is."""
        self._progress = progress

    def render(self) -> RenderableType | None:
        """The line to draw now; None during the first SHOW_DELAY seconds."""
        seconds = time.monotonic() - self._since
        if seconds < SHOW_DELAY:
            return None
        frame = SPINNER[int(seconds * FRAMES_PER_SECOND) % len(SPINNER)]
        return Text(f"{frame} {self._status(seconds)}", style="dim", no_wrap=True, overflow="ellipsis")

    def _status(self, seconds: float) -> str:
        progress = self._progress
        if progress is None or progress.total < LONG_PROMPT or progress.processed >= progress.total - 1:
            return f"{seconds:.0f} s"
        filled = progress.processed * BAR_WIDTH // progress.total
        bar = "━" * filled + "╌" * (BAR_WIDTH - filled)
        status = f"{bar} reading {progress.processed:,} of {progress.total:,} tokens"
        if progress.processed:
            left = seconds * (progress.total - progress.processed) / progress.processed
            status += f" · {left:.0f} s left"
        return status
