"""One server with the demo for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from live_server import LiveServer, live_server

from mlx_qwen3.server.config import ServerConfig


@pytest.fixture(scope="session")
def server() -> Iterator[LiveServer]:
    with live_server(ServerConfig(prepares=False)) as running:
        yield running


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
