"""Many threads, an event loop and cancels at any moment on one engine, with a small random model."""

from __future__ import annotations

import asyncio
import copy
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, write_checkpoint

from mlx_qwen3 import Engine, Session
from mlx_qwen3.cache.prompt_cache import common_prefix
from mlx_qwen3.engine.turn import TurnSequence
from mlx_qwen3.errors import EngineError
from mlx_qwen3.events import AnswerDelta, Done, Event, PromptProgress, ThinkingDelta
from mlx_qwen3.generation import forward

GREEDY = {"temperature": 0, "max_tokens": 12}
SECONDS = 120  # more is a deadlock
CANCELS = 500 if os.environ.get("MLX_QWEN3_LONG_TESTS") else 150


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = write_byte_tokenizer(tmp_path_factory.mktemp("tiny"))
    write_checkpoint(folder, DENSE | {"num_hidden_layers": 1})
    with Engine(str(folder)) as engine:
        yield engine


def text_of(events: list[Event]) -> tuple[str, str]:
    """What was thought and answered."""
    thought = "".join(event.text for event in events if isinstance(event, ThinkingDelta))
    return thought, "".join(event.text for event in events if isinstance(event, AnswerDelta))


def check_order(events: list[Event]) -> None:
    """A turn's events: the prompt, further and further; one Done, at the end."""
    progress = [event.processed for event in events if isinstance(event, PromptProgress)]
    assert isinstance(events[0], PromptProgress)
    assert progress == sorted(progress)
    assert [isinstance(event, Done) for event in events].index(True) == len(events) - 1


def test_cancels_at_any_moment_leave_a_session_like_a_fresh_one(engine: Engine) -> None:
    rng = random.Random(7)
    session = engine.session(sampling=GREEDY)
    delays: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    cancelled = threading.Semaphore(0)

    def cancel() -> None:
        while (delay := delays.get()) is not None:
            time.sleep(delay)
            session.cancel()
            cancelled.release()

    threads = [threading.Thread(target=cancel, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    endings: set[tuple[str, bool]] = set()
    wanted = {("cancelled", False), ("cancelled", True)}  # before a word, and after one
    for number in range(20 * CANCELS):
        if number >= CANCELS and wanted <= endings:
            break
        if number % 20 == 0:
            session.clear()
        session.thinking, session.thinking_budget = rng.random() < 0.5, rng.choice([None, 0, 3])
        delays.put(rng.uniform(0, 0.01))
        reply = session.ask("x" * rng.randrange(1, 300))
        endings.add((reply.finish_reason, bool(reply.answer or reply.thinking)))
        if number % 50 == 19:
            for _ in range(50 if number > 50 else 20):
                assert cancelled.acquire(timeout=SECONDS)
            check_like_a_fresh_one(session)
    for _ in threads:
        delays.put(None)
    assert wanted <= endings


def check_like_a_fresh_one(session: Session) -> None:
    fresh = session.branch()
    fresh.conversation.messages = copy.deepcopy(session.messages)
    replies = [each.ask("and now?") for each in (session, fresh)]
    assert replies[0].finish_reason != "cancelled"
    assert (replies[0].thinking, replies[0].answer) == (replies[1].thinking, replies[1].answer)
    cache = session._cache.cache
    assert {layer.offset for layer in cache.layers} == {len(cache.ids)}


def test_20_threads_and_an_event_loop_share_an_engine(engine: Engine) -> None:
    questions = ["one", "two and more", "three"]
    alone = engine.session(sampling=GREEDY)
    expected = [(reply.thinking, reply.answer) for reply in map(alone.ask, questions)]

    def talk(how: int) -> list[tuple[str, str]]:
        session = engine.session(sampling=GREEDY)
        answers = []
        for question in questions:
            events = list(session.send(question)) if how % 2 else posted(session, question)
            check_order(events)
            answers.append(text_of(events))
            if how % 3 == 0:
                session.prepare()
        return answers

    async def talk_async() -> list[tuple[str, str]]:
        session, answers = engine.session(sampling=GREEDY), []
        for question in questions:
            events = [event async for event in session.asend(question)]
            check_order(events)
            answers.append(text_of(events))
        return answers

    async def all_async() -> list[list[tuple[str, str]]]:
        async with asyncio.timeout(SECONDS):
            return await asyncio.gather(*(talk_async() for _ in range(5)))

    with ThreadPoolExecutor(20) as pool:
        threads = [pool.submit(talk, number) for number in range(20)]
        results = asyncio.run(all_async()) + [thread.result(timeout=SECONDS) for thread in threads]
    assert results == [expected] * 25


def posted(session: Session, question: str) -> list[Event]:
    """The events of a turn, by callbacks brought to this thread."""
    calls: queue.SimpleQueue[object] = queue.SimpleQueue()
    events: list[Event] = []
    session.post(question, events.append, dispatch=calls.put)
    while not (events and isinstance(events[-1], Done)):
        calls.get(timeout=SECONDS)()
    return events


def test_an_abandoned_async_loop_cancels(engine: Engine) -> None:
    async def leave_early() -> Session:
        session = engine.session(sampling={**GREEDY, "max_tokens": 10_000, "temperature": 2})
        async for event in session.asend("go"):
            if isinstance(event, AnswerDelta | ThinkingDelta):
                break
        for _ in range(100 * SECONDS):
            await asyncio.sleep(0.01)
            if session._jobs.job.finished.is_set():
                return session
        raise AssertionError("still running")

    session = asyncio.run(leave_early())
    assert session.ask("again").stats.prompt_tokens > 0


def test_50_turns_of_all_modes_keep_to_the_template(engine: Engine) -> None:
    """The ids in the cache are the template's, and no more is read than must be."""
    rng = random.Random(2)
    session = engine.session(system="Be brief.", sampling={**GREEDY, "max_tokens": 8})
    prompts, fed = [], []
    for number in range(50):
        session.thinking = rng.random() < 0.7
        session.thinking_budget = rng.choice([None, None, 0, 1, 16])
        text = f"question {number}" + rng.choice(["", "", " /think", " /no_think"])
        prompt = session.prompt_ids([*session.messages, {"role": "user", "content": text}])
        held = list(session._cache.cache.ids) if session._cache.cache else []
        stats = session.ask(text).stats
        cache = session._cache.cache
        assert cache.ids[: len(prompt)] == prompt
        assert {layer.offset for layer in cache.layers} == {len(cache.ids)}
        assert stats.prompt_tokens == len(prompt)
        assert stats.cached_tokens == common_prefix(held, prompt)
        if number % 2:
            session.prepare()
            session._jobs.job.wait()
        prompts.append(prompt)
        fed.append(stats.prompt_tokens - stats.cached_tokens)
    assert all(len(a) < len(b) for a, b in pairwise(prompts))
    ahead = fed[2::2]  # the turns that were prepared
    assert max(ahead) <= len("question 48 /no_think<|im_end|>\n<|im_start|>assistant\n") + 10
    assert sum(fed) < sum(map(len, prompts)) / 5


@pytest.mark.parametrize(
    "code",
    [
        "import mlx_qwen3, mlx.core as mx\n"
        "x = mx.random.normal((256, 256))\n"
        "for _ in range(40): x = x @ x * 0.05\n"
        "mx.async_eval(x)",
        "from threading import Event\n"
        "from mlx_qwen3 import Engine\n"
        "began = Event()\n"
        "Engine('demo').session().post('what is 347+285?', lambda event: began.set())\n"
        "began.wait()",
    ],
    ids=["a product under way", "an engine left open"],
)
def test_a_process_ends_whatever_is_being_computed(code: str) -> None:
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS)
        assert (done.returncode, done.stderr) == (0, "")


def test_engines_that_collect_each_others_turns_do_not_wait_for_each_other() -> None:
    first, second = Engine("demo"), Engine("demo")
    options = {"sampling": {"max_tokens": 500}}
    turns = [engine.session(**options).send("hi") for engine in (first, second)]
    for turn in turns:
        next(turn)
    gate = threading.Barrier(2)

    def close(turn: Iterator[Event]) -> None:
        gate.wait(SECONDS)
        turn.close()  # type: ignore[attr-defined]  # a generator

    with ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(first.call, lambda: close(turns[1])),
            pool.submit(second.call, lambda: close(turns[0])),
        ]
        for call in waiting:
            call.result(timeout=SECONDS)
    first.close()
    second.close()


def test_a_fork_has_no_engine(engine: Engine) -> None:
    code = (
        "import os\n"
        "from mlx_qwen3 import Engine\n"
        "engine = Engine('demo')\n"
        "if (child := os.fork()) == 0:\n"
        "    try: engine.session().ask('hi')\n"
        "    except Exception as error: print(type(error).__name__, error, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "engine.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS)
    assert done.stdout == (
        "EngineError this process was forked after the engine was made; make a new Engine in it\n"
    )


class Panic(BaseException):
    """As libraries in Rust raise."""


def test_a_panic_ends_everything_with_one_error_and_nothing_waits() -> None:
    engine = Engine("demo")
    running = engine.session(sampling={"max_tokens": 2000}).send("hi")
    next(running)

    def panic() -> None:
        raise Panic("index out of range")

    with pytest.raises(EngineError, match=r"thread died .*index out of range"):
        engine.call(panic)
    with pytest.raises(EngineError, match="make a new Engine"):
        list(running)
    with pytest.raises(EngineError, match="make a new Engine"):
        engine.session().ask("hi")
    engine.close()


def test_300_sessions_and_many_cancels_leave_nothing_behind(engine: Engine) -> None:
    rng = random.Random(3)

    def play(count: int) -> None:
        for _ in range(count):
            session = engine.session(sampling=GREEDY)
            events = session.send("x" * rng.randrange(1, 60))
            for _ in range(rng.randrange(4)):
                if next(events, None) is None:
                    break
            session.cancel()
            events.close()  # type: ignore[attr-defined]  # a generator

    play(30)
    before = threading.active_count()
    play(300)
    assert threading.active_count() <= before
    assert engine.stats().running == engine.stats().waiting == 0
    assert engine.session(sampling=GREEDY).ask("and now?").stats.generated_tokens > 0


def test_half_surrogates_become_replacement_characters(engine: Engine, tmp_path: Path) -> None:
    session = engine.session(system="a\udcff", sampling=GREEDY)
    session.ask("b\ud800c")
    session.save(tmp_path / "saved.json")
    assert [m["content"] for m in session.messages[:2]] == ["a\ufffd", "b\ufffdc"]
    assert Session.load(engine, tmp_path / "saved.json").messages == session.messages


def test_a_token_is_handed_out_before_the_next_is_computed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind, take, choose = [], TurnSequence.take, forward.choose_rows
    chosen = taken = 0

    def counted_choice(*arguments: Any) -> Any:
        nonlocal chosen
        chosen += 1
        return choose(*arguments)

    def counted_take(self: TurnSequence, *arguments: Any) -> None:
        nonlocal taken
        taken += 1
        behind.append(chosen - taken)
        take(self, *arguments)

    monkeypatch.setattr(forward, "choose_rows", counted_choice)
    monkeypatch.setattr(TurnSequence, "take", counted_take)
    list(engine.session(sampling=GREEDY).send("abc"))
    if not engine.model.computes_now:
        pytest.skip("MLX computes the next token beside the engine, so it is asked for ahead")
    assert behind
    assert max(behind) == 0
