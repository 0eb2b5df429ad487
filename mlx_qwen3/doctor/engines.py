"""Engines on threads of their own: two at once, sessions from several threads, closed and made again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from mlx_qwen3.engine import Engine

QUESTION, ANSWER = "what is 47+85?", "132"
GREEDY = {"temperature": 0, "max_tokens": 300}


def check_engines() -> Iterator[str]:
    """The built-in demo adds two numbers, whichever thread asks."""
    with ThreadPoolExecutor(3) as pool:
        engine = pool.submit(Engine, "demo").result()
        with engine, Engine("demo") as other:
            engines = (engine, other, engine)
            answers = list(pool.map(_answer, engines))
        with Engine("demo") as again:
            answers.append(_answer(again))
    for answer in answers:
        if ANSWER not in answer:
            yield f"the demo answers {QUESTION!r} with {answer[:60]!r}, not {ANSWER}"


def _answer(engine: Engine) -> str:
    return engine.session(thinking=True, sampling=GREEDY).ask(QUESTION).answer
