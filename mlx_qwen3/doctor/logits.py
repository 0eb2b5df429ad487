"""Logits of small models, fed in every way that chooses another kernel, beside the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_qwen3.cache.batch import batched_layers
from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.cache.rows import Layout, QuantizedRows, quantize
from mlx_qwen3.doctor.compare import allowed, as_numpy, distance, drawn_ids, fed
from mlx_qwen3.doctor.models import HEADS, VOCABULARY, Subject, make_subject, unpacked
from mlx_qwen3.model.attention_kernels import attend

SIZES = (1, 2, 3, 4, 8, 9, 16, 17, 64)
"""Tokens at a time around each threshold of MLX's kernels."""
TOKENS, WINDOW, KEEP = 66, 40, 4
QUICK_TOKENS, QUICK_WINDOW = 36, 24
LONG = (1030, 4100, 8200)
"""Cached rows beyond which Metal splits its work otherwise."""
HEAD_DIM = 128


def check_logits(quick: bool = False) -> Iterator[str]:
    """Dense and mixture, 16 bits and 4, fed so many tokens at a time."""
    kinds: list[tuple[str, bool, int | None]] = [("0.6b", False, None), ("0.6b", True, None)]
    if not quick:
        kinds += [("4b", False, None), ("32b", False, None), ("14b", False, 4), ("0.6b", True, 8)]
    ids = drawn_ids(QUICK_TOKENS if quick else TOKENS, VOCABULARY)
    for heads, experts, bits in kinds:
        subject = make_subject(heads, experts=experts, bits=bits)
        expected = subject.expected(ids)
        for size in (1, 4, 17) if quick else SIZES:
            far = distance(fed(subject.model, ids, [size]), expected)
            if far > allowed():
                yield f"{subject.name} in {bits or 16} bits, {size} tokens at a time, is off by {far:.2g}"


def check_caches(quick: bool = False) -> Iterator[str]:
    """Quantized KV caches and windows, filled and read in steps of several sizes."""
    subject = make_subject("4b")
    tokens, size = (QUICK_TOKENS, QUICK_WINDOW) if quick else (TOKENS, WINDOW)
    ids = drawn_ids(tokens, VOCABULARY, seed=1)
    full, window = subject.expected(ids), subject.expected(ids, size, KEEP)
    for sizes in ([30, 1],) if quick else ([50, 1], [1], [3], [17, 2, 40, 1]):
        for bits in (None, 8, 4):
            for options, expected in (({}, full), ({"max_size": size, "keep": KEEP}, window)):
                given: dict[str, Any] = {**options, **({"bits": bits} if bits else {})}
                far = distance(fed(subject.model, ids, sizes, **given), expected)
                if far > allowed(bits):
                    name = f"{'a window' if options else 'a cache'} of {bits or 16} bits"
                    yield f"{name}, fed {sizes} tokens at a time, is off by {far:.2g}"


def check_long_rows() -> Iterator[str]:
    """Attention of 1 to 17 queries to thousands of rows, plain and quantized, for all ratios of heads."""
    random = np.random.default_rng(0)
    cases: list[tuple[str, int, tuple[int, ...]]] = [(name, LONG[0], (1, 8)) for name in HEADS]
    cases += [("0.6b", LONG[1], (1, 3)), ("0.6b", LONG[2], (1, 9))]
    for name, rows, counts in cases:
        heads, key_heads = HEADS[name]
        keys, values = (random.standard_normal((key_heads, rows, HEAD_DIM), np.float32) for _ in range(2))
        for queries in counts:
            q = 2 * random.standard_normal((heads, queries, HEAD_DIM), np.float32)
            for bits in (None, 8):
                far = _attention_error(q, keys, values, bits)
                if far > allowed():
                    yield f"{queries} queries to {rows} rows of {bits or 16} bits are off by {far:.2g}"


def _attention_error(
    queries: NDArray[Any], keys: NDArray[Any], values: NDArray[Any], bits: int | None
) -> float:
    dtype = mx.array(0.0).dtype if allowed() < 0.01 else mx.bfloat16
    q, k, v = (mx.array(part[None]).astype(dtype) for part in (queries, keys, values))
    stored: Any = (k, v)
    if bits is not None:
        stored = tuple(quantize(part, Layout(64, bits)) for part in (k, v))
    plain = [_as_stored(part, bits) for part in stored]
    output = attend(q, stored[0], stored[1], HEAD_DIM**-0.5, "causal" if queries.shape[1] > 1 else None)
    expected = _attention(as_numpy(q)[0], *plain)
    return distance(as_numpy(output)[0].reshape(-1, HEAD_DIM), expected.reshape(-1, HEAD_DIM))


def _as_stored(rows: Any, bits: int | None) -> NDArray[Any]:
    """Rows (H, S, D) in fp32 by numpy, from an array (1, H, S, D) or quantized rows."""
    if isinstance(rows, QuantizedRows) and bits is not None:
        return np.asarray(unpacked(rows.packed, bits, rows.scales, rows.biases)[0])
    return np.asarray(as_numpy(rows)[0])


def _attention(queries: NDArray[Any], keys: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    group, length = queries.shape[0] // keys.shape[0], queries.shape[1]
    seen = np.arange(keys.shape[1])[None] <= np.arange(length)[:, None] + keys.shape[1] - length
    outputs = []
    for head, rows in enumerate(queries):
        scores = rows @ keys[head // group].T * np.float32(HEAD_DIM**-0.5)
        scores = np.where(seen, scores, np.float32(-np.inf))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        outputs.append(weights / weights.sum(axis=-1, keepdims=True) @ values[head // group])
    return np.stack(outputs)


def check_batches(quick: bool = False) -> Iterator[str]:
    """Sequences of different lengths in one pass, one with two new tokens, one leaving: as each alone."""
    subject = make_subject("0.6b", bits=4)
    for count in (3,) if quick else (3, 17):
        texts = [drawn_ids(8 + 3 * number % 40, VOCABULARY, seed=number) for number in range(count)]
        yield from _batch_errors(subject, texts)


def _batch_errors(subject: Subject, texts: list[list[int]]) -> Iterator[str]:
    model, last = subject.model, 4
    caches: list[Any] = [make_prompt_cache(model) for _ in texts]
    expected = [subject.expected(text) for text in texts]
    for text, cache in zip(texts, caches, strict=True):
        mx.eval(model(mx.array([text[:-last]], mx.uint32), cache))
    running = list(range(len(texts)))
    done = [len(text) - last for text in texts]
    for step in range(3):
        lengths = [2 if step == 1 and number == running[0] else 1 for number in running]
        new = [texts[n][done[n] : done[n] + length] for n, length in zip(running, lengths, strict=True)]
        layers = batched_layers([caches[number] for number in running], lengths)
        logits = as_numpy(model(mx.array([[token] for ids in new for token in ids], mx.uint32), layers)[:, 0])
        wanted = [expected[n][done[n] + i] for n, length in zip(running, lengths, strict=True)
                  for i in range(length)]  # fmt: skip
        far = distance(logits, np.stack(wanted))
        if far > allowed():
            yield f"a batch of {len(running)} sequences is off by {far:.2g} in step {step + 1}"
        for number, length in zip(running, lengths, strict=True):
            done[number] += length
        running = running[: len(running) - 1]


def check_positions() -> Iterator[str]:
    """Rotations that are moved, as windows move them, and moved back; a window whose first keys move."""
    subject = make_subject("0.6b")
    rope = subject.model.layers[0].self_attn.rope
    x = mx.random.normal((1, 2, 7, HEAD_DIM), key=mx.random.key(3))
    for by in (1, 256, 4096):
        moved, direct = rope.shift(rope(x, offset=5), by), rope(x, offset=5 + by)
        back = rope.shift(moved, -by)
        for name, got, wanted in (("moved", moved, direct), ("moved back", back, rope(x, offset=5))):
            far = distance(as_numpy(got)[0, 0], as_numpy(wanted)[0, 0])
            if far > allowed():
                yield f"keys {name} by {by} positions are off by {far:.2g}"
    ids = drawn_ids(WINDOW + 300, VOCABULARY, seed=5)
    options = {"max_size": WINDOW, "keep": KEEP}
    one, other = (fed(subject.model, ids, sizes, **options) for sizes in ([16], [1]))
    far = distance(one, other)
    if far > 2 * allowed():
        yield f"a window that has moved differs by {far:.2g} between steps of 16 tokens and of 1"
