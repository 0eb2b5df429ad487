"""What is written to disk and read again: KV caches, and converted weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.cache.serialization import load_prompt_cache, save_prompt_cache
from mlx_qwen3.conversion.quantize.search import quantize_searched
from mlx_qwen3.doctor.compare import allowed, as_numpy, distance, drawn_ids
from mlx_qwen3.doctor.models import VOCABULARY, make_subject, unpacked
from mlx_qwen3.model.config import Quantization

TOKENS, MORE = 40, 8


def check_saved_caches() -> Iterator[str]:
    """A cache that was saved and loaded has the same bits, and goes on as the reference does."""
    subject = make_subject("0.6b")
    ids = drawn_ids(TOKENS + MORE, VOCABULARY, seed=11)
    expected = subject.expected(ids)[TOKENS:]
    with TemporaryDirectory() as folder:
        for bits in (None, 8):
            cache = make_prompt_cache(subject.model, bits=bits)
            mx.eval(subject.model(mx.array([ids[:TOKENS]], mx.uint32), cache))
            path = Path(folder) / f"{bits}.safetensors"
            save_prompt_cache(path, cache)
            loaded, _ = load_prompt_cache(path)
            if _bits([layer.state for layer in loaded]) != _bits([layer.state for layer in cache]):
                yield f"a saved cache of {bits or 16} bits came back changed"
            logits = subject.model(mx.array([ids[TOKENS:]], mx.uint32), loaded)[0]
            far = distance(as_numpy(logits), expected)
            if far > allowed(bits):
                yield f"a saved cache of {bits or 16} bits goes on with logits off by {far:.2g}"


def _bits(state: Any) -> list[Any]:
    values = [value for _, value in tree_flatten(state)]
    return [as_numpy(value).tobytes() if isinstance(value, mx.array) else value for value in values]


def check_conversion() -> Iterator[str]:
    """Searched rounding is never worse than plain rounding, and the same in parts as in the whole."""
    random = np.random.default_rng(3)
    for dtype in (mx.float32, mx.bfloat16, mx.float16):
        for bits in (4, 8) if dtype is mx.float32 else (4,):
            weight = mx.array(random.standard_t(4, (64, 256)).astype(np.float32) / 16).astype(dtype)
            weight[0] = 0
            quantization = Quantization(group_size=64, bits=bits)
            searched = quantize_searched(weight, quantization)
            plain = mx.quantize(weight, group_size=64, bits=bits)
            errors = [_group_errors(weight, bits, stored) for stored in (searched, plain)]
            worse = int((errors[0] > errors[1] * (1 + 1e-3) + 1e-9).sum())
            if worse:
                yield f"searching made {worse} groups of {dtype} in {bits} bits worse than plain rounding"
            if errors[0].mean() > 0.97 * errors[1].mean() and bits == 4:
                yield f"searching gained nothing for {dtype} in 4 bits"
            if errors[1].mean() > 2 * _expected_error(weight, bits):
                yield f"plain rounding of {dtype} in {bits} bits is less exact than its step allows"
            parts = [
                quantize_searched(weight[start : start + 16], quantization) for start in range(0, 64, 16)
            ]
            joined = [mx.concatenate(list(part)) for part in zip(*parts, strict=True)]
            if _bits(joined) != _bits(list(searched)):
                yield f"a matrix of {dtype} converted in parts differs from the whole"


def _group_errors(weight: mx.array, bits: int, stored: Any) -> Any:
    difference = unpacked(stored[0], bits, stored[1], stored[2]) - as_numpy(weight)
    return (difference.reshape(weight.shape[0], -1, 64) ** 2).mean(axis=-1)


def _expected_error(weight: mx.array, bits: int) -> float:
    """The mean squared error of rounding to the nearest of 2^bits steps across each group."""
    groups = as_numpy(weight).reshape(weight.shape[0], -1, 64)
    steps = (groups.max(axis=-1) - groups.min(axis=-1)) / (2**bits - 1)
    return float((steps**2 / 12).mean())
