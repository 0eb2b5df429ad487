"""One engine in a process of its own: start, load, prefill, decode; prints one line of JSON.

Both engines run their own public path on the same files and ids: ours through `load_model`, `prefill`
and `decode`; mlx-lm through `load_model` and `generate_step`. Greedy, no tokenizer. Batches are fed to
either engine's model by the same loop. Run by its path and not as a module of the package: the
peer's process must not import mlx_qwen3, which would lend it our BLAS.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

ORDINARY_TOKENS = 151_000  # of Qwen3's vocabulary; those behind are control tokens or unused
# A first run this short says when the first token comes, and how fast the engine is.
FEW_PROMPT, FEW_TOKENS = 4, 2
# Share of the time allowed that the prompt may take.
PROMPT_SHARE = 2 / 3
CHUNK = 2048

Prompts = list[list[int]]
Generate = Callable[[Prompts], Iterator[Any]]  # yields after each token of all prompts
Timed = Callable[[int, int, int], dict[str, Any]]  # of a prompt's length, a batch and an answer's length


def ours(folder: Path) -> Generate:
    """Load with mlx_qwen3; returns a function from prompts to an iterator over steps."""
    from mlx_qwen3 import SamplingParams, load_model, make_prompt_cache
    from mlx_qwen3.generation.decode import decode, prefill
    from mlx_qwen3.generation.sampling import Sampler

    model = load_model(folder)

    def generate(prompts: Prompts) -> Iterator[Any]:
        cache = make_prompt_cache(model)
        if len(prompts) > 1:
            yield from _together(model, cache, prompts)
        (ids,) = prompts
        for _ in prefill(model, ids[:-1], cache):
            pass
        sampler = Sampler(SamplingParams(temperature=0), model.args.vocab_size)
        yield from decode(model, ids[-1:], cache, sampler)

    return generate


def mlx_lm(folder: Path) -> Generate:
    """Load with mlx-lm; returns a function from prompts to an iterator over steps."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)

    def generate(prompts: Prompts) -> Iterator[Any]:
        if len(prompts) > 1:
            yield from _together(model, make_prompt_cache(model), prompts)
        (ids,) = prompts
        yield from generate_step(mx.array(ids), model, max_tokens=-1)

    return generate


ENGINES = {"mlx-qwen3": ours, "mlx-lm": mlx_lm}


def _together(model: Any, cache: Any, prompts: Prompts) -> Iterator[Any]:
    """Prompts of one length as one batch, a step ahead of what is yielded."""
    import mlx.core as mx

    ids = mx.array(prompts)
    for start in range(0, ids.shape[1] - 1, CHUNK):
        model(ids[:, start : min(start + CHUNK, ids.shape[1] - 1)], cache=cache)
        mx.eval([layer.state for layer in cache])

    def step(tokens: mx.array) -> mx.array:
        following = mx.argmax(model(tokens, cache=cache)[:, -1], axis=-1)
        mx.async_eval(following)  # type: ignore[no-untyped-call]
        return following

    tokens = step(ids[:, -1:])
    while True:
        following = step(tokens[:, None])
        yield tokens.tolist()
        tokens = following


def measure(engine: str, folder: Path, cases: Sequence[Sequence[int]], limit: float) -> dict[str, Any]:
    """Every case, (prompt tokens, texts at once, answer tokens), cut down to `limit` seconds."""
    began = time.perf_counter()
    generate = ENGINES[engine](folder)
    loaded = time.perf_counter()
    import mlx.core as mx  # not before: whoever imports it first chooses its BLAS

    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    timed = partial(_timed, generate, range(min(vocabulary, ORDINARY_TOKENS)))
    few = timed(FEW_PROMPT, 1, FEW_TOKENS)
    first_token_at = time.time() - few["decode_s"]
    if few["ttft_s"] < 1:  # the first run also paid for what is done once
        few = timed(FEW_PROMPT, 1, FEW_TOKENS)
    results = []
    for prompt, batch, tokens in cases:
        given = _fitting(timed, few, prompt * batch, limit) // batch
        answer = min(tokens, max(FEW_TOKENS, int(limit * (1 - PROMPT_SHARE) * FEW_TOKENS / few["decode_s"])))
        if (given, batch, answer) != (FEW_PROMPT, 1, FEW_TOKENS):
            mx.clear_cache()
            mx.reset_peak_memory()
            result = timed(max(given, 2), batch, answer)
        else:
            result = few  # so slow that this is all there is time for
        results.append({"prompt": prompt, **result, "peak_bytes": mx.get_peak_memory()})
    return {
        "load_s": loaded - began,  # imports included
        "first_token_at": first_token_at,  # wall clock: whoever started this process knows when
        "cases": results,
        "resident_bytes": _resident_bytes(),
    }


def _timed(generate: Generate, ids: range, prompt: int, batch: int, tokens: int) -> dict[str, Any]:
    """One run; prefill counts the time to the first token, as a user meets it."""
    draw = random.Random(0)
    prompts = [draw.choices(ids, k=prompt) for _ in range(batch)]
    start = time.perf_counter()
    stream = generate(prompts)
    next(stream)
    first = time.perf_counter()
    for _ in islice(stream, tokens):
        pass
    end = time.perf_counter()
    return {
        "batch": batch,
        "prompt_tokens": prompt,
        "decode_tokens": tokens,
        "ttft_s": first - start,
        "decode_s": end - first,
        "prefill_tok_s": batch * prompt / (first - start),
        "decode_tok_s": batch * tokens / (end - first),
    }


def _fitting(timed: Timed, few: dict[str, Any], prompt: int, limit: float) -> int:
    """How many tokens of a prompt fit the time; found with longer ones where a few tell too little."""
    size, seconds, allowed = FEW_PROMPT, few["ttft_s"], limit * PROMPT_SHARE
    while prompt * seconds / size > allowed and 8 * seconds < allowed:
        size *= 8
        seconds = timed(size, 1, 1)["ttft_s"]
    return min(prompt, max(FEW_PROMPT, int(allowed * size / seconds)))


def _resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on a Mac, else in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """`worker.py ENGINE FOLDER CASES LIMIT`; CASES as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", type=json.loads)
    parser.add_argument("limit", type=float)
    options = parser.parse_args()
    sys.stdout.write(json.dumps(measure(options.engine, options.folder, options.cases, options.limit)) + "\n")


if __name__ == "__main__":
    main()
