"""FairQueue: whose turn it is. Clients that run least go first, so that one cannot starve the others."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from mlx_qwen3.server.errors import RequestError

USUAL_SECONDS = 2.0  # of a request, before any was measured
SMOOTHING = 0.1
MOST_KEYS = 4096  # whose last turn is known


class Ticket:
    """A place in the queue, then a slot. Release it once, whether or not its turn came."""

    def __init__(self, queue: FairQueue, key: str, on_turn: Callable[[], object]):
        self.key, self.on_turn = key, on_turn
        self.is_running = self.is_over = False
        self._queue = queue

    def release(self, seconds: float | None = None) -> None:
        """Make room for the next. seconds: how long it ran, for the estimate of waiting times."""
        if not self.is_over:
            self.is_over = True
            self._queue.leave(self, seconds)


class FairQueue:
    """Lets `slots` tickets run at once. For one thread alone.

    Args:
        slots: How many run at once.
        waiting: How many may wait, of all keys together.
        waiting_of_one: How many of one key may wait.
    """

    def __init__(self, slots: int, waiting: int, waiting_of_one: int):
        self.slots, self._most, self._most_of_one = slots, waiting, waiting_of_one
        self._waiting: dict[str, deque[Ticket]] = {}
        self._served: OrderedDict[str, int] = OrderedDict()  # key -> number of the turn it had last
        self._turns = 0
        self._running: Counter[str] = Counter()
        self._seconds = USUAL_SECONDS

    @property
    def running(self) -> int:
        return sum(self._running.values())

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def check(self, key: str, count: int = 1) -> None:
        """Raises RequestError (429) if `count` more of a key cannot wait."""
        free = max(0, self.slots - self.running)
        own = len(self._waiting.get(key, ()))
        if self.waiting + count - free > self._most or own + count - free > self._most_of_one:
            seconds = math.ceil((own or self.waiting) / self.slots * self._seconds)
            raise RequestError(
                429,
                "the server has as many requests waiting as it takes; try again later",
                code="queue_full",
                retry_after=min(max(1, seconds), 300),
            )

    def enter(self, key: str, on_turn: Callable[[], object]) -> Ticket:
        """Queue up. `on_turn` is called when the ticket may run, perhaps at once."""
        ticket = Ticket(self, key, on_turn)
        self._waiting.setdefault(key, deque()).append(ticket)
        self._call_next()
        return ticket

    def leave(self, ticket: Ticket, seconds: float | None = None) -> None:
        """A ticket is over."""
        if ticket.is_running:
            self._running[ticket.key] -= 1
            if not self._running[ticket.key]:
                del self._running[ticket.key]
            if seconds is not None:
                self._seconds += SMOOTHING * (seconds - self._seconds)
        elif ticket.key in self._waiting:
            own = self._waiting[ticket.key]
            if ticket in own:
                own.remove(ticket)
            if not own:
                del self._waiting[ticket.key]
        self._call_next()

    def _call_next(self) -> None:
        while self._waiting and self.running < self.slots:
            # Of the keys that run least, the one served longest ago.
            key = min(self._waiting, key=lambda key: (self._running[key], self._served.get(key, 0)))
            own = self._waiting[key]
            ticket = own.popleft()
            if not own:
                del self._waiting[key]
            self._running[key] += 1
            self._remember(key)
            ticket.is_running = True
            ticket.on_turn()

    def _remember(self, key: str) -> None:
        """A key has its turn."""
        self._turns += 1
        self._served[key] = self._turns
        self._served.move_to_end(key)
        if len(self._served) > MOST_KEYS:
            self._served.popitem(last=False)
