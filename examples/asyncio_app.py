"""Several questions at once with one model, in an asyncio program.

    python examples/asyncio_app.py [model]

Each question has its own session. The engine generates for all of them at once.
"""

from __future__ import annotations

import asyncio
import sys

from mlx_qwen3 import Engine
from mlx_qwen3.events import AnswerDelta

QUESTIONS = ["what is 147+230?", "hello", "how do I convert a model?"]


async def answer(engine: Engine, question: str, seconds: float = 60) -> str:
    """The answer to `question`, or the part of it that was generated after `seconds`."""
    session, text = engine.session(sampling={"seed": 1}), ""  # the same answers in every run
    try:
        async with asyncio.timeout(seconds):
            async for event in session.asend(question):
                if isinstance(event, AnswerDelta):
                    text += event.text
    except TimeoutError:
        text += " ..."
    return text


async def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "demo"
    # Loading a large model takes seconds; this does not block the event loop.
    engine = await Engine.aload(model)
    try:
        answers = await asyncio.gather(*(answer(engine, question) for question in QUESTIONS))
        for question, text in zip(QUESTIONS, answers, strict=True):
            print(f"{question}\n  {text}")
    finally:
        await asyncio.to_thread(engine.close)


if __name__ == "__main__":
    asyncio.run(main())
