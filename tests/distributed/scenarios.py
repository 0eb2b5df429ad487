"""What the tests do with an engine, on one machine and on several: the results must be equal."""

from __future__ import annotations

from typing import Any

from mlx_qwen3 import Engine
from mlx_qwen3.engine.batch import BatchRequest

GREEDY = {"temperature": 0}
LONG = "The cat sat on the mat. " * 12


def everything(engine: Engine) -> dict[str, Any]:
    """Completions, batches, sessions with shared prefixes, cancels, seeds, budgets: all features meet."""
    results: dict[str, Any] = {}
    results["greedy"] = engine.complete(LONG, sampling={**GREEDY, "max_tokens": 100}).text
    seeded = {"temperature": 0.9, "seed": 7, "max_tokens": 20}
    results["seeded"] = engine.complete("hello", sampling=seeded).text
    prompts = [BatchRequest(prompt=text, sampling={"seed": 3}, n=2) for text in ("a b c", LONG, "xyz " * 9)]
    batch = engine.generate_batch(prompts, sampling={"temperature": 0.7, "max_tokens": 12})
    results["batch"] = sorted((each.index, each.choice, each.text) for each in batch)
    session = engine.session(thinking=False, sampling={**GREEDY, "max_tokens": 10})
    turns = [session.ask(LONG).answer]
    for number, _ in enumerate(session.send(LONG * 2)):
        if number == 2:
            session.cancel()
    session.clear()  # how far it came before the cancel depends on the clock
    turns.append(session.ask(LONG + "go on").answer)
    thoughtful = engine.session(thinking=True, thinking_budget=5, sampling={**GREEDY, "max_tokens": 40})
    reply = thoughtful.ask(LONG)
    turns += [
        reply.answer,
        reply.thinking,
        engine.session(thinking=False, sampling={"seed": 5, "max_tokens": 9}).branch().ask("x").answer,
    ]
    results["turns"] = turns
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    results["schema"] = thoughtful.ask("a number", schema).answer
    return results


def adapted(engine: Engine) -> dict[str, Any]:
    """Requests and a session, each with an adapter of its own."""
    chosen = ("one", None, "none", "two", "one")
    prompts = [
        BatchRequest(prompt=LONG[: 20 + 9 * n], adapter=name, sampling={**GREEDY, "max_tokens": 12})
        for n, name in enumerate(chosen)
    ]
    batch = sorted(engine.generate_batch(prompts), key=lambda each: each.index)
    session = engine.session(thinking=False, adapter="one", sampling={**GREEDY, "max_tokens": 8})
    turns = [session.ask(LONG).answer]
    session.adapter = "none"
    turns.append(session.ask("go on").answer)
    return {"texts": [each.text for each in batch], "turns": turns}
