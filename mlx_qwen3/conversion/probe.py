"""A short text through two checkpoints of one model: how far apart are their predictions?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3.config import ModelConfig
from mlx_qwen3.conversion.sources import Source
from mlx_qwen3.conversion.streamed import OnBytes, streamed_model
from mlx_qwen3.errors import TokenizerError
from mlx_qwen3.tokenizer import load_tokenizer

MAX_TOKENS = 192
TILE = 16  # positions whose predictions are compared at once
TEXT = """\
The river had frozen early that winter, and for the first time in years the children could walk across
it to school. Their grandmother counted them from the window: one, two, three small coats, red, blue and
green. "Be back before dark," she called, although nobody could hear her through the glass.

def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2

47 + 85 = 132, because 7 + 5 = 12 and 40 + 80 = 120. Water boils at 100 °C at sea level, and at about
93 °C in the mountains at 2,000 m. 北京是中国的首都。 Der Zug nach Hamburg fährt um 9.15 Uhr ab.
"""


@dataclass(frozen=True)
class Probe:
    """Predictions of a checkpoint beside its source's. kl: mean divergence from the source's, in nats a
    token. top1: share of `tokens` for which both find the same token the likeliest."""

    tokens: int
    kl: float
    top1: float


def probe(
    made: Mapping[str, Source],
    original: Mapping[str, Source],
    config: ModelConfig,
    tokenizer_folder: Path,
    on_bytes: OnBytes | None = None,
) -> Probe:
    """Run the same tokens through both. on_bytes: called with bytes of weights as they are read.

    Raises CheckpointError.
    """
    ids = probe_ids(tokenizer_folder, config.vocab_size)
    theirs, ours = (predictions(sources, config, ids, on_bytes) for sources in (original, made))
    divergence = sum(
        _divergence(theirs[start : start + TILE], ours[start : start + TILE])
        for start in range(0, len(ids), TILE)
    )
    agreement = np.array(theirs.argmax(axis=-1) == ours.argmax(axis=-1)).mean()
    return Probe(tokens=len(ids), kl=max(0.0, divergence / len(ids)), top1=float(agreement))


def probe_ids(tokenizer_folder: Path, vocab_size: int) -> list[int]:
    """Tokens of a text; of a model without a tokenizer, some tokens."""
    try:
        ids = load_tokenizer(tokenizer_folder).encode(TEXT)[:MAX_TOKENS]
    except TokenizerError:
        ids = []
    if not ids or max(ids) >= vocab_size:
        return [int(token) for token in np.random.default_rng(0).integers(0, vocab_size, MAX_TOKENS)]
    return ids


def predictions(
    sources: Mapping[str, Source], config: ModelConfig, ids: list[int], on_bytes: OnBytes | None = None
) -> mx.array:
    """Logits (L, V) in fp32 of the model whose tensors are `sources`, none of which is held in memory."""
    model = streamed_model(sources, config, on_bytes)
    logits = model(mx.array([ids]))[0]
    mx.eval(logits)
    return logits


def _divergence(theirs: mx.array, ours: mx.array) -> float:
    """Sum over rows of KL(theirs || ours), in nats."""
    p, q = (logits - mx.logsumexp(logits, axis=-1, keepdims=True) for logits in (theirs, ours))
    return float(np.array((mx.exp(p) * (p - q)).sum()))
