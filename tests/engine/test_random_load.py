"""Random requests side by side give what each gives alone: budgets, schemas, stop strings, seeds, caches."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from random_schemas import random_schema

from mlx_qwen3 import Engine
from mlx_qwen3.events import Done

QUESTIONS = ["what is 47+85?", "hello", "Hi! How are you?", "what can you do?", "what is 12*7?", "12 - 5"]
JOBS = 300 if os.environ.get("MLX_QWEN3_LONG_TESTS") else 16


def draw(rng: random.Random, number: int) -> dict[str, Any]:
    """A request: what is asked, and how."""
    sampling: dict[str, Any] = {"seed": number, "max_tokens": rng.randrange(5, 70)}
    sampling["temperature"] = rng.choice([0, 0.7, 1.3])
    sampling["presence_penalty"] = rng.choice([0, 0, 1.0])
    sampling["repetition_penalty"] = rng.choice([1, 1, 1.1])
    if rng.random() < 0.3:
        sampling["stop"] = rng.choice([["tiny"], ["addition", "!"], ["zzz"]])
    if rng.random() < 0.2:
        sampling["min_tokens"] = 12
    if rng.random() < 0.2:
        sampling["logit_bias"] = {40: 5, 41: -50}
    return {
        "is_completion": rng.random() < 0.25,
        "text": rng.choice(QUESTIONS),
        "thinking": rng.random() < 0.6,
        "budget": rng.choice([None, None, 0, 5, 20]),
        "schema": random_schema(number) if rng.random() < 0.25 else None,
        "sampling": sampling,
        "wait": rng.uniform(0, 0.3),
    }


def play(engine: Engine, job: dict[str, Any]) -> tuple[Any, ...]:
    """What comes of it."""
    if job["is_completion"]:
        completion = engine.complete(job["text"], sampling=job["sampling"])
        return completion.text, completion.finish_reason, completion.stats.stop_string
    session = engine.session(
        thinking=job["thinking"], thinking_budget=job["budget"], sampling=job["sampling"]
    )
    reply = session.ask(job["text"], schema=job["schema"])
    return reply.thinking, reply.answer, reply.parsed, reply.finish_reason, reply.stats.stop_string


@pytest.mark.parametrize(
    "options", [{}, {"kv_bits": 8}, {"max_kv_size": 128}], ids=["full", "8 bits", "window"]
)
def test_requests_side_by_side_are_requests_alone(options: dict[str, Any]) -> None:
    rng = random.Random(str(options))
    jobs = [draw(rng, number) for number in range(JOBS)]

    def later(job: dict[str, Any]) -> tuple[Any, ...]:
        time.sleep(job["wait"])
        return play(engine, job)

    with Engine("demo", **options) as engine:
        cancelled = engine.session(sampling={"max_tokens": 300}).send("hello")
        with ThreadPoolExecutor(16) as pool:
            next(cancelled)
            together = [pool.submit(later, job) for job in jobs]
            time.sleep(0.1)
            cancelled.close()  # type: ignore[attr-defined]  # a generator
            results = [result.result(timeout=200) for result in together]
        alone = [play(engine, job) for job in jobs]
        # A difference in the last bit may round a value of a quantized cache to the next step.
        same = sum(result == own for result, own in zip(results, alone, strict=True))
        assert same >= (0.7 if "kv_bits" in options else 1) * JOBS
        assert engine.stats().running == engine.stats().waiting == 0


def test_a_chat_and_a_batch_report_what_ran_together() -> None:
    with Engine("demo") as engine:
        run = engine.generate_batch(
            ["The time"] * 6, sampling={"max_tokens": 60, "min_tokens": 60, "seed": 1}
        )
        next(run)
        events = list(engine.session(sampling={"max_tokens": 20}).send("hello"))
        done = events[-1]
        assert isinstance(done, Done)
        assert done.stats.batch_size >= 1
        assert done.stats.queue_time >= 0
        assert done.stats.time_per_output_token >= 0
        assert len(list(run)) == 5
