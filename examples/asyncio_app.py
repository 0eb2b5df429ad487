"""Several questions at once on one model, in an asyncio program.

    python examples/asyncio_app.py [model]

Each question has a session of its own; the engine lets them take turns, a token each.
"""

from __future__ import annotations

import asyncio
import sys

from mlx_qwen3 import Engine
from mlx_qwen3.events import AnswerDelta

QUESTIONS = ["what is 147+230?", "hello", "how do I convert a model?"]


async def answer(engine: Engine, question: str, seconds: float = 60) -> str:
    """The answer to `question`, or as much of it as there is after `seconds`."""
    session, text = engine.session(thinking=False), ""
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
    # Loading takes seconds for a large model: not on the event loop's thread.
    engine = await asyncio.to_thread(Engine, model)
    try:
        answers = await asyncio.gather(*(answer(engine, question) for question in QUESTIONS))
        for question, text in zip(QUESTIONS, answers, strict=True):
            print(f"{question}\n  {text}")
    finally:
        await asyncio.to_thread(engine.close)


if __name__ == "__main__":
    asyncio.run(main())
