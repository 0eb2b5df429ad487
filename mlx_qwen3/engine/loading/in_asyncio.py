"""Opens an engine for a program of asyncio: on a thread, with progress on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from mlx_qwen3.checkpoint.transfer.transfer import Cancel
from mlx_qwen3.engine.loading.watch import LoadWatch, OnProgress
from mlx_qwen3.errors import Qwen3Error
from mlx_qwen3.events import LoadProgress


class Closable(Protocol):
    """What is opened."""

    def close(self) -> None:
        """Give back what it holds."""


T = TypeVar("T", bound=Closable)


async def open_in_asyncio(
    make: Callable[..., T],
    *,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
    **options: Any,
) -> T:
    """What `make(on_progress=..., cancel=..., **options)` returns, called on a thread.

    A cancelled task raises CancelledError once the thread has ended, and leaves nothing open.
    """
    loop, watch = asyncio.get_running_loop(), LoadWatch(on_progress, cancel)  # raises before a thread starts

    def tell(progress: LoadProgress) -> None:
        assert on_progress is not None
        loop.call_soon_threadsafe(on_progress, progress)

    told = None if on_progress is None else tell
    opening = asyncio.ensure_future(asyncio.to_thread(make, on_progress=told, cancel=watch, **options))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        watch.stop()
        with suppress(Qwen3Error):
            (await opening).close()
        raise
