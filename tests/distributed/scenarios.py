"""What the tests do with an engine, on one machine and on several: the results must be equal."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import mlx.core as mx
from embedding_models import texts

from mlx_qwen3 import Engine, Session
from mlx_qwen3.distributed.speed import traffic
from mlx_qwen3.engine.batch import BatchRequest
from mlx_qwen3.errors import CacheError

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


QUERY = "what is it?"
DOCUMENTS = [*texts(5), "long " * 300]  # the last is fed in parts


def embedded(engine: Engine) -> dict[str, Any]:
    """Embeddings of texts of many lengths."""
    return {"vectors": engine.embed(DOCUMENTS, instruction=QUERY).tolist()}


def reranked(engine: Engine) -> dict[str, Any]:
    """Embeddings, scores, and an answer after them."""
    scores = engine.rerank(QUERY, DOCUMENTS)
    text = engine.complete(LONG, sampling={**GREEDY, "max_tokens": 12}).text
    return {**embedded(engine), "scores": scores, "text": text}


def kept(engine: Engine, path: Path) -> dict[str, Any]:
    """A conversation whose KV cache is kept in a file, and what a session fed that went on with it."""
    session = engine.session(thinking=False, sampling={**GREEDY, "max_tokens": 10})
    results: dict[str, Any] = {"first": session.ask(LONG).answer}
    for _ in range(2):  # the second replaces the first
        session.save_cache(path)
    session.save(path.with_suffix(".json"))
    results["other"] = session.ask("something else").answer
    later = Session.load(engine, path.with_suffix(".json"))
    later.load_cache(path)
    reply = later.ask("and then?")
    results |= {"then": reply.answer, "cached": reply.stats.cached_tokens}
    with suppress(CacheError):
        later.load_cache(path.with_suffix(".missing"))
    results["at last"] = later.ask("at last?").answer
    return results


def kept_in_parts(engine: Engine, folder: str) -> dict[str, Any]:
    """`kept`, and what is said once rank 1 has lost its part."""
    path = Path(folder) / "cache.safetensors"
    results = kept(engine, path)
    parts = list(Path.home().rglob("parts/*.safetensors"))
    results["parts"] = [part.stat().st_size > 0 for part in parts]
    parts[0].unlink()
    session = engine.session(thinking=False, sampling={**GREEDY, "max_tokens": 10})
    try:
        session.load_cache(path)
    except CacheError as error:
        results["lost"] = str(error)
    results["after"] = session.ask(LONG).answer
    return results


def weighed(engine: Engine) -> dict[str, Any]:
    """Bytes that a prompt and its answer have rank 0 send, those foreseen, and the peak of its memory."""
    ranks: Any = engine._ranks
    engine.complete("xyz", sampling={**GREEDY, "max_tokens": 2}).text  # noqa: B018  # runs it
    before, prompt = ranks.group.sent, LONG[:100]
    engine.complete(prompt, sampling={**GREEDY, "max_tokens": 8, "min_tokens": 8}).text  # noqa: B018
    fed = len(engine.tokenizer.encode(prompt))
    mode, size = engine.options["distributed"], len(ranks.shares)
    return {
        "sent": ranks.group.sent - before,
        "foreseen": [traffic(engine.config, mode, size, tokens, itemsize=4).nbytes for tokens in (fed, 1)],
        "peak": engine.call(mx.get_peak_memory),
    }
