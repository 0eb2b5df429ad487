"""Random and broken requests: no exception but RequestError, no 500, nothing left running."""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import Any

import pytest
from live_server import LiveServer

from benchmarks.server_fuzz import BODIES, change, fuzz
from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.openai.chat import read_chat
from mlx_qwen3.server.openai.completions import read_completion

REQUESTS = 20_000 if os.environ.get("MLX_QWEN3_LONG_TESTS") else 60
READERS = {"/v1/chat/completions": read_chat, "/v1/completions": read_completion}


def refusal(path: str, body: Any) -> RequestError | None:
    """Why a body is refused; None if it is not."""
    try:
        READERS[path](body)
    except RequestError as error:
        return error
    return None


@pytest.mark.parametrize("path", READERS)
def test_readers_raise_nothing_else(path: str) -> None:
    draw = random.Random(3)
    refused = 0
    for _ in range(3000):
        body = json.loads(json.dumps(BODIES[path]))
        for _ in range(draw.choice([1, 1, 2, 5])):
            change(body, draw)
        if (error := refusal(path, body)) is not None:
            assert (error.status, bool(error.param)) == (400, True), error.message
            refused += 1
    assert refused > 1000


def test_no_request_breaks_the_server(server: LiveServer) -> None:
    statuses, problems = asyncio.run(fuzz(server.url, REQUESTS, 8, seed=1))
    assert problems == []
    assert statuses[200] > REQUESTS / 20
    assert statuses[400] > REQUESTS / 4
    assert not server.service.running
    assert server.service.models.default.users == 0
