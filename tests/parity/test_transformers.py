"""Logits and greedy text equal transformers' Qwen3, from golden files and, marked `parity`, live."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from conftest import build
from parity.model_cases import CASES, prompt
from parity.separate_process import in_transformers, needs_transformers

from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.model.qwen3 import Model

TOLERANCE = 1e-4
GOLDEN = np.load(Path(__file__).parent / "model_golden.npz")
CHUNK = 512


def prefilled(model: Model, ids: np.ndarray, upto: int) -> list:
    """A cache that holds the first `upto` of ids (B, L)."""
    cache = make_prompt_cache(model)
    for start in range(0, upto, CHUNK):
        model(mx.array(ids[:, start : min(start + CHUNK, upto)]), cache)
        mx.eval([layer.state for layer in cache])
    return cache


def last_logits(model: Model, ids: np.ndarray, count: int, step: int) -> np.ndarray:
    """Logits of the last `count` positions, fed `step` at a time after the rest of the prompt."""
    cache = prefilled(model, ids, ids.shape[1] - count)
    parts = [
        model(mx.array(ids[:, i : i + step]), cache) for i in range(ids.shape[1] - count, ids.shape[1], step)
    ]
    return np.array(mx.concatenate(parts, axis=1))


def greedy(model: Model, ids: np.ndarray) -> Iterator[int]:
    cache = prefilled(model, ids, ids.shape[1] - 1)
    token = mx.array(ids[:, -1:])
    while True:
        token = model(token, cache)[:, -1:].argmax(-1)
        yield int(token.item())


@pytest.mark.parametrize("case", CASES)
def test_prompt_logits(case: str) -> None:
    raw, length = CASES[case]
    golden = GOLDEN[f"{case}/logits"]
    batch, kept, _ = golden.shape
    model = build(raw)
    ids = prompt(length, batch)
    if length < 1000:
        ours = np.array(model(mx.array(ids))[:, -kept:])  # without a cache
        assert np.abs(ours - golden).max() <= TOLERANCE
        alone = np.array(model(mx.array(ids[:1]))[:, -kept:])
        assert np.abs(alone - golden[:1]).max() <= TOLERANCE
    assert np.abs(last_logits(model, ids, kept, step=kept) - golden).max() <= TOLERANCE
    assert np.abs(last_logits(model, ids, kept, step=1) - golden).max() <= TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_greedy_text(case: str) -> None:
    raw, length = CASES[case]
    golden = GOLDEN[f"{case}/greedy"].tolist()
    assert list(islice(greedy(build(raw), prompt(length, 1)), len(golden))) == golden


def test_golden_file_is_small() -> None:
    assert (Path(__file__).parent / "model_golden.npz").stat().st_size < 300_000


@pytest.mark.parity
@needs_transformers
@pytest.mark.parametrize("case", [name for name, (_, length) in CASES.items() if length < 1000])
@pytest.mark.parametrize("batch", [1, 3])
def test_live_logits(case: str, batch: int) -> None:
    raw, _ = CASES[case]
    ids = prompt(130, batch)
    expected = in_transformers("logits", raw, ids, last=130)
    model = build(raw)
    assert np.abs(np.array(model(mx.array(ids))) - expected).max() <= TOLERANCE
    assert np.abs(last_logits(model, ids, 8, step=1) - expected[:, -8:]).max() <= TOLERANCE


@pytest.mark.parity
@needs_transformers
@pytest.mark.parametrize("case", ["dense", "moe", "moe-yarn-4"])
def test_golden_file_is_what_transformers_says_today(case: str) -> None:
    raw, length = CASES[case]
    golden = GOLDEN[f"{case}/greedy"][:40].tolist()
    assert in_transformers("greedy", raw, prompt(length, 1), 40) == golden


@pytest.mark.parity
@needs_transformers
def test_the_reference_computes_alone() -> None:
    assert in_transformers("surroundings") == (1, False)
