"""How late an event loop is while the engine generates in the same process.

    python -m benchmarks.responsiveness [--model demo] [--seconds 20]

A task sleeps for a millisecond, again and again, and records how late it wakes. Meanwhile two sessions
generate: one with `asend` on the same loop, one in a thread. The prompts are long, so that prefill counts
too. The first line is of the loop alone, for comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time

from mlx_qwen3 import Engine

TICK = 0.001
PROMPT = "one two three four five. " * 100


async def stalls(seconds: float) -> list[float]:
    """How late each tick was, in seconds, sorted."""
    late, end = [], time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        await asyncio.sleep(TICK)
        late.append(time.perf_counter() - start - TICK)
    return sorted(late)


async def talk(engine: Engine, is_over: threading.Event) -> int:
    """Run turns on this loop until `is_over`. Returns the number of events."""
    events = 0
    while not is_over.is_set():
        session = engine.session(thinking=False, sampling={"max_tokens": 200, "temperature": 1})
        async for _ in session.asend(PROMPT):
            events += 1
            if is_over.is_set():
                break
    return events


def talk_in_thread(engine: Engine, is_over: threading.Event) -> None:
    while not is_over.is_set():
        session = engine.session(sampling={"max_tokens": 200, "temperature": 1})
        for _ in session.send(PROMPT):
            if is_over.is_set():
                break


async def measure(model: str, seconds: float) -> None:
    show("the loop alone", await stalls(seconds / 4))
    engine, is_over = await asyncio.to_thread(Engine, model), threading.Event()
    thread = threading.Thread(target=talk_in_thread, args=(engine, is_over))
    thread.start()
    talking = asyncio.create_task(talk(engine, is_over))
    show("while two sessions answer", await stalls(seconds))
    is_over.set()
    print(f"{await talking:,} events reached the loop")
    await asyncio.to_thread(thread.join)
    await asyncio.to_thread(engine.close)


def show(title: str, late: list[float]) -> None:
    quantiles = [late[int(share * (len(late) - 1))] * 1000 for share in (0.5, 0.99, 0.999, 1)]
    shown = ", ".join(
        f"{name} {value:.1f} ms"
        for name, value in zip(("median", "99 %", "99.9 %", "worst"), quantiles, strict=True)
    )
    print(f"{title}: late by {shown} ({len(late):,} ticks)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    asyncio.run(measure(options.model, options.seconds))


if __name__ == "__main__":
    main()
