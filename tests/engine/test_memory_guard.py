"""The memory guard: an engine whose memory shrinks parks caches and goes on, and loses no turn."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_qwen3 import Engine
from mlx_qwen3.backend import memory
from mlx_qwen3.backend.memory import Pressure
from mlx_qwen3.engine.memory import guard, parking
from mlx_qwen3.engine.memory.parking import ParkingLot
from mlx_qwen3.errors import EngineError
from mlx_qwen3.events import Done, MemoryLow

RUNS = 100 if os.environ.get("MLX_QWEN3_LONG_TESTS") else 2
QUESTIONS = ["what is 47+85?", "hello", "what can you do?", "what is 12*7?", "12 - 5", "Hi! How are you?"]
GREEDY = {"temperature": 0, "max_tokens": 20}


@pytest.fixture(scope="module")
def shared() -> Iterator[Engine]:
    with Engine("demo", context=4096) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The demo, with a quick guard that parks in a folder of its own and sees no pressure by itself."""
    monkeypatch.setattr(guard, "INTERVAL", 0.0)
    monkeypatch.setattr(guard, "IDLE_INTERVAL", 0.0)
    monkeypatch.setattr("mlx_qwen3.engine.core.IDLE_INTERVAL", 1000)  # looks only while there is work
    monkeypatch.setattr(guard, "RECOVERY", 0.02)
    while not shared.scheduler.is_idle:  # a text that the last test cancelled
        time.sleep(0.001)
    # A look that was planned before the intervals were made short may be two seconds away.
    shared.call(lambda: setattr(shared.guard, "_next_look", 0.0))
    monkeypatch.setattr(memory, "_system_pressure", lambda: Pressure.NORMAL)
    monkeypatch.setattr(memory, "free_memory", lambda: 2**60)
    monkeypatch.setattr(shared, "sessions", ParkingLot(tmp_path))
    monkeypatch.delenv("MLX_QWEN3_MEMORY", raising=False)
    yield shared
    monkeypatch.delenv("MLX_QWEN3_MEMORY", raising=False)
    deadline = time.monotonic() + 60
    while shared.guard.is_holding_back and time.monotonic() < deadline:
        shared.call(lambda: shared.guard.watch())


def talk(engine: Engine, questions: list[str]) -> list[str]:
    """The answers of one conversation."""
    session = engine.session(thinking=False, sampling=GREEDY)
    return [session.ask(question).answer for question in questions]


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_shrinking_limit_parks_and_loses_no_turn(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    plans = [rng.choices(QUESTIONS, k=2) for _ in range(rng.randrange(2, 4))]
    expected = [talk(engine, plan) for plan in plans]
    active = engine.call(mx.get_active_memory)
    is_over = threading.Event()

    def shrink() -> None:
        """The limit goes down, below what is taken, and up again."""
        while not is_over.is_set():
            monkeypatch.setenv("MLX_QWEN3_MEMORY", str(active + rng.randrange(-2_000_000, 3_000_000)))
            is_over.wait(rng.uniform(0.005, 0.05))

    thread = threading.Thread(target=shrink)
    thread.start()
    try:
        with ThreadPoolExecutor(len(plans)) as pool:
            answers = list(pool.map(lambda plan: talk(engine, plan), plans))
    finally:
        is_over.set()
        thread.join()
    assert answers == expected


def test_idle_conversations_are_parked_and_come_back(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, other = (engine.session(thinking=False, sampling=GREEDY) for _ in range(2))
    session.ask("what is 47+85?")
    held = session.cache_info
    assert held.nbytes > 0
    engine.call(lambda: None)  # it has looked at the memory after that turn
    monkeypatch.setenv("MLX_QWEN3_MEMORY", "1")
    events = list(other.send("hello"))
    monkeypatch.delenv("MLX_QWEN3_MEMORY")
    assert session.cache_info.nbytes == 0
    assert session.tokens == held.tokens
    assert len(list(tmp_path.glob("*/1.safetensors"))) == 1
    said = {event.action: event.nbytes for event in events if isinstance(event, MemoryLow)}
    assert said["parked"] >= held.nbytes
    assert "waiting" in said
    assert isinstance(events[-1], Done)

    reply = session.ask("12 - 5")
    unparked = engine.session(thinking=False, sampling=GREEDY)
    unparked.ask("what is 47+85?")
    expected = unparked.ask("12 - 5")
    assert (reply.answer, reply.stats.cached_tokens) == (expected.answer, expected.stats.cached_tokens)
    assert reply.stats.cached_tokens > 10
    assert list(tmp_path.glob("*/1.safetensors")) == []  # its file; the other may be parked by now


def test_what_cannot_be_parked_is_prefilled_again(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "sessions", ParkingLot(tmp_path / "file"))
    (tmp_path / "file").write_text("no folder can be made here")
    session = engine.session(thinking=False, sampling=GREEDY)
    session.ask("what is 47+85?")
    engine.call(lambda: engine.guard.park_idle())
    assert session.cache_info.nbytes == session.tokens == 0
    assert session.ask("12 - 5").answer == talk(engine, ["what is 47+85?", "12 - 5"])[1]


def test_a_damaged_file_of_a_parked_cache_costs_a_prefill_alone(engine: Engine, tmp_path: Path) -> None:
    session = engine.session(thinking=False, sampling=GREEDY)
    session.ask("what is 47+85?")
    engine.call(lambda: engine.guard.park_idle())
    (path,) = tmp_path.glob("*/*.safetensors")
    path.write_bytes(path.read_bytes()[:500])
    reply = session.ask("12 - 5")
    assert reply.answer == talk(engine, ["what is 47+85?", "12 - 5"])[1]
    assert reply.stats.cached_tokens == 0


def test_waiting_texts_are_begun_once_there_is_memory(engine: Engine) -> None:
    before = engine.guard.pressure
    try:
        first = engine.session(thinking=False, sampling={**GREEDY, "max_tokens": 2000, "min_tokens": 2000})
        events = first.send("count")
        next(events)  # it runs, and will be told
        engine.guard.pressure = lambda: Pressure.WARNING
        assert any(isinstance(event, MemoryLow) and event.action == "waiting" for event in events)
        events.close()
        with ThreadPoolExecutor(1) as pool:
            running = first.send("go on")
            next(running)
            waiting = pool.submit(lambda: talk(engine, ["hello"]))
            while not engine.stats().waiting:
                time.sleep(0.001)
            for _ in range(40):
                next(running)
            assert engine.stats().waiting == 1
            engine.guard.pressure = before
            assert waiting.result(timeout=60) == talk(engine, ["hello"])
            running.close()
    finally:
        engine.guard.pressure = before


def test_killed_processes_leave_no_parked_caches(tmp_path: Path) -> None:
    dead, own = tmp_path / "999999999-x", tmp_path / f"{os.getpid()}-x"
    for folder in (dead, own):
        folder.mkdir()
    lot = ParkingLot(tmp_path)
    path = lot._new_path()
    assert not dead.exists()
    assert own.exists()
    path.write_text("")
    del lot
    assert not path.parent.exists()


def test_an_idle_model_is_unloaded_and_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_qwen3.engine.core.IDLE_INTERVAL", 0.01)
    monkeypatch.setattr(parking, "user_cache_path", lambda name: tmp_path)
    with Engine("demo", unload_after=0.05) as engine:
        session = engine.session(thinking=False, sampling=GREEDY)
        session.ask("what is 47+85?")
        model = weakref.ref(engine.model)
        while engine.model is not None:
            time.sleep(0.01)
        deadline = time.monotonic() + 60  # the engine's thread may be about to let it go
        while model() is not None and time.monotonic() < deadline:
            gc.collect()
        assert model() is None
        assert session.tokens > 0
        reply = session.ask("12 - 5")
        assert reply.stats.cached_tokens > 0
        assert engine.model is not None
    with pytest.raises(EngineError, match="unload_after must be a number of seconds, not -1"):
        Engine("demo", unload_after=-1)
