"""What a server keeps of the requests it has served: counted in objects and bytes, not in time."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections import Counter
from typing import Any

import mlx.core as mx
import pytest
from live_server import LiveServer, live_server

from benchmarks.server_fuzz import fuzz
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.reuse import prefixes, recall

REQUESTS = 5000 if os.environ.get("MLX_QWEN3_LONG_TESTS") else 60
MOST_CACHES, MOST_CALLS = 4, 5
# An event loop keeps up to a hundred timers that were cancelled until they would have been due.
TIMERS = {"asyncio.events.TimerHandle": 150}
BUFFER, PLACE = "mlx_qwen3.cache.buffers.Buffer", "mlx_qwen3.cache.buffers.Place"
# Rooms of which a request leaves objects behind if it leaves any.
ROOMS = ("mlx_qwen3.", "mlx.", "asyncio.", "_asyncio.", "starlette.", "uvicorn.", "h11.", "httptools.")


def kept() -> Counter[str]:
    """How many objects of each class there are."""
    gc.collect()
    names = [f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects()]
    return Counter(name for name in names if name.startswith(ROOMS))


def settle(server: LiveServer) -> None:
    """Wait until nothing runs, and what runs beside requests has looked once."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (
        server.service.running
        or server.service._background  # prefills the next turn, once the pause before it is over
        or not server.engine.scheduler.is_idle
        or server.server.server_state.connections
    ):
        time.sleep(0.02)
    server.engine.call(mx.clear_cache)


def test_thousands_of_requests_leave_nothing_but_the_caches_there_are_limits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefixes, "MOST_IDLE", MOST_CACHES)
    monkeypatch.setattr(recall, "MOST_CALLS", MOST_CALLS)
    monkeypatch.setattr(recall, "MOST_TOOL_LISTS", MOST_CALLS)
    with live_server(ServerConfig()) as server:

        def after(requests: int, seed: int) -> tuple[Counter[str], Any]:
            _, problems = asyncio.run(fuzz(server.url, requests, 8, seed))
            assert problems == []
            settle(server)
            return kept(), server.store.stats()

        before, stats = after(REQUESTS, 1)
        seed = 1
        while stats.caches < MOST_CACHES:  # or the caches that are still to come would count as a leak
            seed += 1
            before, stats = after(REQUESTS, seed)
        later, stats = after(2 * REQUESTS, seed + 1)
        per_token = server.engine.cache_nbytes(256) / 256
        assert stats.caches == MOST_CACHES
        assert stats.nbytes <= 2.01 * per_token * stats.tokens  # a cache in use grows in steps
    # A buffer of a cache knows the place of its rows, or has yet to look: which of them do is chance.
    assert later.pop(PLACE, 0) <= later[BUFFER]
    grown = {
        name: later[name] - before[name] for name in later if later[name] > before[name] + TIMERS.get(name, 8)
    }
    assert not grown, "requests left objects behind"
