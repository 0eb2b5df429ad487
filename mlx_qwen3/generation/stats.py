"""What a scheduler says of itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

RATE_SECONDS = 2.0


@dataclass
class SchedulerStats:
    """What the scheduler is doing. tokens_per_second: of all sequences, lately. kv_bytes: of their caches."""

    running: int = 0
    waiting: int = 0
    tokens_per_second: float = 0.0
    kv_bytes: int = 0
    generated: int = 0


@dataclass
class Rate:
    """Tokens a second over the last seconds in which there was work."""

    tokens: int = 0
    since: float = field(default_factory=time.perf_counter)
    value: float = 0.0

    def add(self, count: int) -> None:
        self.tokens += count
        spent = time.perf_counter() - self.since
        if spent > RATE_SECONDS:
            self.value, self.tokens, self.since = self.tokens / spent, 0, time.perf_counter()
