"""The examples run: their parts without a user interface, on the demo model."""

from __future__ import annotations

import asyncio
import queue
import time

import pytest

from examples import asyncio_app
from examples.menu_bar import Assistant
from mlx_qwen3 import Engine


def test_the_menu_bar_assistant_shows_its_answer_on_the_thread_of_its_choice() -> None:
    shown: list[str] = []
    calls: queue.SimpleQueue[object] = queue.SimpleQueue()
    assistant = Assistant("demo", shown.append, calls.put)
    assistant.ask("hello")
    assert shown == [], "nothing may happen outside the main thread"
    deadline = time.monotonic() + 30
    while not shown or shown[-1].endswith(" ..."):
        assert time.monotonic() < deadline
        calls.get(timeout=30)()
    assert shown[-1].strip()
    assistant.stop()
    assistant.close()
    assistant.ask("anyone there?")
    while not calls.empty() or "closed" not in shown[-1]:
        calls.get(timeout=30)()
    assert "closed" in shown[-1]


def test_the_asyncio_example_answers_every_question() -> None:
    async def run() -> list[str]:
        with Engine() as engine:
            return await asyncio.gather(*(asyncio_app.answer(engine, q) for q in asyncio_app.QUESTIONS))

    addition, greeting, question = asyncio.run(run())
    assert "377" in addition
    assert greeting.strip()
    assert "mlx-qwen3 convert" in question


def test_the_asyncio_example_stops_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> str:
        with Engine() as engine:
            return await asyncio_app.answer(engine, "hello", seconds=0)

    assert asyncio.run(run()).endswith("...")
