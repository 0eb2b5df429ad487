"""Measures one engine in its own process: start, load, prefill, decode. Prints one line of JSON.

The engines run on the same token ids, ours and mlx-lm on the same files: ours `load_model` and the scheduler,
mlx-lm `load_model` and `generate_step`, or for a batch a plain loop over its model, llama.cpp its server on
a GGUF file of the same shape. Sampling is greedy, without a tokenizer.

This file is run by its path, so that mlx-lm's process imports nothing of mlx_qwen3.
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

ORDINARY_TOKENS = 151_000  # ids of Qwen3's vocabulary below its special and unused tokens
# Length of a first run, which shows when the first token comes and how fast the engine is.
PROBE_PROMPT, PROBE_TOKENS = 4, 2
# Share of the time limit that prefill may take.
PREFILL_SHARE = 2 / 3
PREFILL_STEP_SIZE = 2048
LLAMA_CPP_CONTEXT = 8192

Prompts = list[list[int]]
Generate = Callable[[Prompts], Iterator[Any]]  # yields after each token (of every sequence in the batch)
Measure = Callable[[int, int, int], dict[str, Any]]  # (prompt tokens, batch size, answer tokens) -> figures


def ours(folder: Path) -> Generate:
    """Load with mlx_qwen3. Returns a function from prompts to an iterator over decoding steps."""
    from mlx_qwen3 import SamplingParams, load_model
    from mlx_qwen3.cache.prompt_cache import PromptCache
    from mlx_qwen3.generation.decode import SimpleSequence, decode_together
    from mlx_qwen3.generation.sampling import Sampler

    model = load_model(folder)
    greedy = SamplingParams(temperature=0)

    def generate(prompts: Prompts) -> Iterator[Any]:
        sequences = [
            SimpleSequence(ids, Sampler(greedy, model.args.vocab_size), PromptCache(model)) for ids in prompts
        ]
        for tokens in decode_together(model, sequences, size=len(prompts)):
            if all(sequence.tokens for sequence in sequences):  # the prompts end at different steps
                yield tokens

    return generate


def mlx_lm(folder: Path) -> Generate:
    """Load with mlx-lm. Returns a function from prompts to an iterator over decoding steps."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)

    def generate(prompts: Prompts) -> Iterator[Any]:
        if len(prompts) > 1:
            yield from _batched(model, make_prompt_cache(model), prompts)
        (ids,) = prompts
        yield from generate_step(mx.array(ids), model, max_tokens=-1)

    return generate


def llama_cpp(folder: Path) -> Generate:
    """Load a GGUF file of the same shape with llama.cpp. Returns a function as above."""
    from mlx_qwen3.backend.threads import num_threads
    from mlx_qwen3.bench.llama_cpp import LlamaCpp, gguf_of

    peer = LlamaCpp(gguf_of(folder), LLAMA_CPP_CONTEXT, num_threads())

    def generate(prompts: Prompts) -> Iterator[Any]:
        (ids,) = prompts
        return peer.generate(ids)

    return generate


ENGINES = {"mlx-qwen3": ours, "mlx-lm": mlx_lm, "llama.cpp": llama_cpp}


def _batched(model: Any, cache: Any, prompts: Prompts) -> Iterator[Any]:
    """Generate for prompts of one length in one batch. One step runs ahead of what is yielded."""
    import mlx.core as mx

    ids = mx.array(prompts)
    for start in range(0, ids.shape[1] - 1, PREFILL_STEP_SIZE):
        model(ids[:, start : min(start + PREFILL_STEP_SIZE, ids.shape[1] - 1)], cache=cache)
        mx.eval([layer.state for layer in cache])

    def step(tokens: mx.array) -> mx.array:
        next_tokens = mx.argmax(model(tokens, cache=cache)[:, -1], axis=-1)
        mx.async_eval(next_tokens)  # type: ignore[no-untyped-call]
        return next_tokens

    tokens = step(ids[:, -1:])
    while True:
        next_tokens = step(tokens[:, None])
        yield tokens.tolist()
        tokens = next_tokens


def measure(engine: str, folder: Path, cases: Sequence[Sequence[int]], limit: float) -> dict[str, Any]:
    """Measure every case (prompt tokens, batch size, answer tokens), cut down to take `limit` seconds."""
    began = time.perf_counter()
    generate = ENGINES[engine](folder)
    loaded = time.perf_counter()
    import mlx.core as mx

    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    measure_case = partial(_measure_case, generate, range(min(vocabulary, ORDINARY_TOKENS)))
    probe = measure_case(PROBE_PROMPT, 1, PROBE_TOKENS)
    first_token_at = time.time() - probe["decode_s"]
    if probe["ttft_s"] < 1:  # again, without the cost of what is done once
        probe = measure_case(PROBE_PROMPT, 1, PROBE_TOKENS)
    decode_limit = limit * (1 - PREFILL_SHARE)
    most_tokens = max(PROBE_TOKENS, int(decode_limit * PROBE_TOKENS / probe["decode_s"]))
    results = []
    for prompt, batch, tokens in cases:
        length = _prompt_in_time(measure_case, probe, prompt * batch, limit) // batch
        answer = min(tokens, most_tokens)
        if (length, batch, answer) != (PROBE_PROMPT, 1, PROBE_TOKENS):
            mx.clear_cache()
            mx.reset_peak_memory()
            result = measure_case(max(length, 2), batch, answer)
        else:
            result = probe  # the engine is so slow that there is no time for more
        results.append({"prompt": prompt, **result, "peak_bytes": mx.get_peak_memory()})
    return {
        "load_s": loaded - began,  # imports included
        "first_token_at": first_token_at,  # wall clock, which the parent process shares
        "cases": results,
        "resident_bytes": _resident_bytes(),
    }


def _measure_case(generate: Generate, ids: range, prompt: int, batch: int, tokens: int) -> dict[str, Any]:
    """Run random prompts once. The prefill time is the time to the first token."""
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


def _prompt_in_time(measure_case: Measure, probe: dict[str, Any], prompt: int, limit: float) -> int:
    """How many of `prompt` tokens prefill in time. Longer probes run where a short one misleads."""
    size, seconds, allowed = PROBE_PROMPT, probe["ttft_s"], limit * PREFILL_SHARE
    while prompt * seconds / size > allowed and 8 * seconds < allowed:
        size *= 8
        seconds = measure_case(size, 1, 1)["ttft_s"]
    return min(prompt, max(PROBE_PROMPT, int(allowed * size / seconds)))


def _resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on a Mac, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """`worker.py ENGINE FOLDER CASES LIMIT`, with CASES in JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", type=json.loads)
    parser.add_argument("limit", type=float)
    options = parser.parse_args()
    sys.stdout.write(json.dumps(measure(options.engine, options.folder, options.cases, options.limit)) + "\n")


if __name__ == "__main__":
    main()
