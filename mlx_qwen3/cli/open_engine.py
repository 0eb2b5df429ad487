"""Opening an engine where a person watches: a bar for what is downloaded, a sign of life while it loads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from mlx_qwen3.cli.progress import DownloadBar, progress_bars

if TYPE_CHECKING:
    from mlx_qwen3.engine import Engine

SECONDS_BEFORE_SHOWN = 0.5  # a model that loads more quickly needs no sign


def open_engine(model: str, **options: Any) -> Engine:
    """Engine(model, **options), with bars on stderr. Raises what Engine raises."""
    from mlx_qwen3.engine import Engine

    with progress_bars() as bars:
        sign = threading.Timer(SECONDS_BEFORE_SHOWN, lambda: bars.add_task(f"loading {model}", total=None))
        sign.daemon = True
        sign.start()
        try:
            return Engine(model, on_download=DownloadBar(bars), **options)
        finally:
            sign.cancel()
