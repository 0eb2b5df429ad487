"""Inbox: carries events from the threads of engines to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from mlx_qwen3.events import Event

Item = tuple[int, Event | BaseException | None]
"""An event of a choice, the error that ended it, or None for its end."""


class Inbox:
    """Carries items from engines' threads to the event loop, with one wake-up for many."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_item: Callable[[Item], None]):
        self._loop, self._on_item = loop, on_item
        self._arrived: deque[Item] = deque()
        self._items: list[Item] = []
        self._is_waking = False
        self._has_items = asyncio.Event()

    @property
    def is_empty(self) -> bool:
        return not (self._arrived or self._items)

    def put(self, item: Item) -> None:
        """From any thread."""
        self._arrived.append(item)
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon_threadsafe(self._drain)

    async def get(self, seconds: float) -> list[Item]:
        """The items since the last time; waits for one, or for so many seconds."""
        if not self._items:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, seconds)):
                    await self._has_items.wait()
        self._has_items.clear()
        items, self._items = self._items, []
        return items

    def _drain(self) -> None:
        self._is_waking = False  # what arrives from here on wakes the loop again
        while self._arrived:
            item = self._arrived.popleft()
            self._on_item(item)
            self._items.append(item)
        self._has_items.set()
