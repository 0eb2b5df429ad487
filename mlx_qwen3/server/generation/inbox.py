"""Carries events from the threads of engines to the event loop: Courier for all requests, Inbox for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mlx_qwen3.events import Event

Item = tuple[int, Event | BaseException | None]
"""An event of a choice, the error that ended it, or None for its end."""


class Courier:
    """Brings items of all requests to the event loop. It is woken once for all that came since."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._arrived: deque[tuple[Inbox, Item]] = deque()
        self._is_waking = False

    def put(self, inbox: Inbox, item: Item) -> None:
        """From any thread."""
        self._arrived.append((inbox, item))
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_waking = False  # what arrives from here on wakes the loop again
        try:
            while self._arrived:
                inbox, item = self._arrived.popleft()
                inbox.take(item)
        finally:
            if self._arrived:  # one inbox failed; the others get theirs
                self._loop.call_soon(self._deliver)


class Inbox:
    """The items of one request. on_item: called on the event loop with each, also if they are not read."""

    def __init__(self, courier: Courier, on_item: Callable[[Item], None]):
        self._courier, self._on_item = courier, on_item
        self._items: list[Item] = []
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_empty(self) -> bool:
        return not self._items

    def put(self, item: Item) -> None:
        """From any thread."""
        self._courier.put(self, item)

    def take(self, item: Item) -> None:
        """An item has come. On the event loop."""
        self._items.append(item)
        self._wake()
        self._on_item(item)

    async def get(self, seconds: float) -> list[Item]:
        """The items since the last time; waits for one, or for so many seconds."""
        if not self._items:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(max(0.0, seconds), self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
        items, self._items = self._items, []
        return items

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
