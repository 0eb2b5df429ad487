"""Opens an engine with progress bars on stderr: for the download, and while the model loads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from mlx_qwen3.cli.progress import LoadBar, progress_bars

if TYPE_CHECKING:
    from mlx_qwen3.engine import Engine

SHOW_DELAY = 0.5  # seconds; a model that loads faster needs no progress bar


def open_engine(model: str, **options: Any) -> Engine:
    """Engine(model, **options), with progress bars. Raises the errors of Engine."""
    from mlx_qwen3.backend.switches import compile_listeners
    from mlx_qwen3.engine import Engine

    with progress_bars() as bars:
        bar = LoadBar(bars, model)
        timer = threading.Timer(SHOW_DELAY, bar.show_loading)
        timer.daemon = True

        def say_compiling() -> None:
            compile_listeners.clear()
            bars.add_task("compiling for this processor, once", total=None)

        compile_listeners.append(say_compiling)
        timer.start()
        try:
            return Engine(model, on_progress=bar, **options)
        finally:
            timer.cancel()
            compile_listeners.clear()
