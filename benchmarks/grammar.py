"""Structured answers: how many are valid, and what a mask costs beside decoding a token.

    python -m benchmarks.grammar --schemas 200 --shape 0.6b

1. The demo answers random JSON schemas, with thinking for every other one: how many answers are valid.
2. Masks over Qwen3's whole vocabulary, for written answers and for random ones (which visit more of a grammar
   than a model's would): milliseconds to accept a token and compute the next mask. This is the thread's CPU
   time, so that other programs do not count.
3. A model of the given shape with random weights decodes with and without a schema, in turn: milliseconds per
   token. Random weights generate random tokens, so this is the hard case of 2 too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import jsonschema  # isort: skip
import mlx.core as mx
import numpy as np
from qwen_tokenizer_files import qwen_tokenizer_folder
from random_schemas import random_schema

from mlx_qwen3 import Engine, load_model, load_tokenizer
from mlx_qwen3.bench.shapes import SHAPES, make_checkpoint
from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.generation.decode import decode
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import Sampler
from mlx_qwen3.grammar import AnswerSchema, TurnGrammar, constrain
from mlx_qwen3.tokenizer import Tokenizer

VOCABULARY = 151_936
MODELS = Path("models")
BLOCK = 16  # tokens decoded before the other variant's turn
PROMPT = [{"role": "user", "content": "Answer."}]
WRITTEN: list[dict[str, Any]] = [
    {
        "name": "Zoë Müller-Lüdenscheidt",
        "age": 47,
        "email": "zoe@example.org",
        "tags": ["jazz", "chess, blitz"],
    },
    {"invoice": "2026-11/0047", "items": [{"what": "paper, A4, 500 sheets", "each": 4.25, "count": 12}] * 4},
    {
        "summary": "The committee met twice and agreed on nothing but the date of the next meeting. " * 4,
        "score": 0.5,
    },
    {"path": [{"x": x, "y": -x * x, "label": f"p{x}"} for x in range(12)], "closed": False, "note": None},
]


def schema_of(value: Any) -> dict[str, Any]:
    """The JSON schema that a person would write for `value`."""
    if isinstance(value, dict):
        properties = {name: schema_of(item) for name, item in value.items()}
        return {"type": "object", "properties": properties, "required": list(value)}
    if isinstance(value, list):
        return {"type": "array", "items": schema_of(value[0])}
    names = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return {"type": names[type(value)]}


def begin(tokenizer: Tokenizer, schema: dict[str, Any]) -> TurnGrammar:
    """The grammar at the start of an answer without thinking."""
    prompt = tokenizer.apply_chat_template(PROMPT, enable_thinking=False)
    grammar = constrain(tokenizer, VOCABULARY, prompt, AnswerSchema.of(schema), {})
    assert grammar is not None
    return grammar


def mask_times(tokenizer: Tokenizer, schemas: int) -> dict[str, list[float]]:
    """Milliseconds per token to accept it and compute the next mask."""
    texts = [json.dumps(value, ensure_ascii=False) for value in WRITTEN]
    written = [
        along(begin(tokenizer, schema_of(value)), iter(tokenizer.encode(text)))
        for value, text in zip(WRITTEN, texts, strict=True)
    ]
    drawn = [along(begin(tokenizer, random_schema(seed)), None, seed) for seed in range(schemas)]
    return {"written": list(itertools.chain(*written)), "drawn": list(itertools.chain(*drawn))}


def along(grammar: TurnGrammar, tokens: Iterator[int] | None, seed: int = 0, most: int = 150) -> list[float]:
    rng, times = np.random.default_rng(seed), []
    mask = grammar.mask()
    for _ in range(most):
        if mask is None:
            break
        choices = np.flatnonzero(np.array(mask))
        token = int(rng.choice(choices)) if tokens is None else next(tokens, int(choices[0]))
        start = time.thread_time()
        grammar.accept(token)
        if (mask := grammar.mask()) is not None:
            mx.eval(mask)
        times.append(1e3 * (time.thread_time() - start))
    return times


def decode_times(tokenizer: Tokenizer, shape: str, blocks: int) -> dict[str, list[float]]:
    """Milliseconds per decoded token with and without a schema, in turn by blocks of tokens."""
    model = load_model(make_checkpoint(shape, 4, MODELS))
    milliseconds: dict[str, list[float]] = {"without": [], "with": []}
    for number in range(blocks):
        for name, times in milliseconds.items():
            grammar = begin(tokenizer, schema_of(WRITTEN[1])) if name == "with" else None
            sampler = Sampler(SamplingParams(seed=number), VOCABULARY, grammar)
            tokens = decode(model, [1, 2, 3], PromptCache(model), sampler)
            next(tokens)
            for _ in range(BLOCK):
                start = time.perf_counter()
                next(tokens)
                times.append(1e3 * (time.perf_counter() - start))
    return milliseconds


def demo_answers(schemas: int, max_tokens: int) -> tuple[int, int, dict[str, int]]:
    """The number of answers, of valid ones, and of each finish reason."""
    asked, valid, endings = 0, 0, dict[str, int]()
    with Engine("demo") as engine:
        for seed in range(schemas):
            schema = random_schema(seed)
            session = engine.session(
                thinking=seed % 2 == 0, sampling={"max_tokens": max_tokens, "seed": seed}
            )
            reply = session.ask("What is 47 + 85?", schema=schema)
            asked += 1
            endings[reply.finish_reason] = endings.get(reply.finish_reason, 0) + 1
            try:
                jsonschema.validate(json.loads(reply.answer), schema)
                valid += 1
            except (ValueError, jsonschema.ValidationError) as error:
                print(f"seed {seed}, {reply.finish_reason}: {error!s:.200}")
    return asked, valid, endings


def figures(name: str, times: list[float]) -> str:
    ordered = sorted(times)
    high = ordered[int(0.99 * len(ordered))]
    return f"{name:28}{median(times):10.3f}{high:10.3f}{ordered[-1]:10.3f}{len(times):8}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--blocks", type=int, default=6, help=f"of {BLOCK} tokens, with and without a schema")
    options = parser.parse_args()
    tokenizer = load_tokenizer(qwen_tokenizer_folder())
    start = time.perf_counter()
    begin(tokenizer, {}).mask()
    print(f"vocabulary made in {time.perf_counter() - start:.2f} s\n")
    print(f"{'milliseconds a token':28}{'median':>10}{'99 %':>10}{'worst':>10}{'tokens':>8}")
    for name, times in mask_times(tokenizer, 50).items():
        print(figures(f"mask, {name} answers", times))
    if options.blocks:
        milliseconds = decode_times(tokenizer, options.shape, options.blocks)
        for name, times in milliseconds.items():
            print(figures(f"{options.shape} decode {name} schema", times))
        ratio = median(milliseconds["with"]) / median(milliseconds["without"])
        print(f"decode with / without: {ratio:.3f}")
    if options.schemas:
        asked, valid, endings = demo_answers(options.schemas, options.max_tokens)
        print(f"\ndemo: {valid} of {asked} answers valid; turns ended by {endings}")


if __name__ == "__main__":
    main()
