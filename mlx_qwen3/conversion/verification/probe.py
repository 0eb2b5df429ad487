"""A short text through two checkpoints of one model: how far apart are their predictions?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.blas import single_threaded
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.conversion.source.tensors import Source
from mlx_qwen3.conversion.verification.streamed_model import OnBytes, streamed_model
from mlx_qwen3.errors import CheckpointError, TokenizerError
from mlx_qwen3.model.config import ModelConfig

Logits = np.ndarray[Any, np.dtype[np.float32]]

MAX_TOKENS = 192
# Logits held of each model: with a large vocabulary, only every so many tokens' predictions are compared.
MAX_LOGITS = 10_000_000
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
    """Predictions of a checkpoint beside its source's. tokens: how many predictions, evenly spread over a
    text. kl: mean divergence from the source's, in nats a token. top1: share of `tokens` for which both
    find the same token the likeliest."""

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
    every = -(-len(ids) * config.vocab_size // MAX_LOGITS)
    theirs, ours = (
        np.asarray(predictions(sources, config, ids, on_bytes, every)) for sources in (original, made)
    )
    tokens = len(theirs)
    divergence = sum(map(_divergence, theirs, ours)) / tokens
    if not np.isfinite(divergence):
        raise CheckpointError("predictions are no finite numbers, though all weights are: they overflow")
    agreement = (theirs.argmax(axis=-1) == ours.argmax(axis=-1)).mean()
    return Probe(tokens=tokens, kl=max(0.0, divergence), top1=float(agreement))


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
    sources: Mapping[str, Source],
    config: ModelConfig,
    ids: list[int],
    on_bytes: OnBytes | None = None,
    every: int = 1,
) -> mx.array:
    """Logits (L / every, V) in fp32 of the model whose tensors are `sources`, which stay on the disk.

    every: 3 gives those after the third token, the sixth and so on.
    """
    model = streamed_model(sources, config, on_bytes)
    with single_threaded():  # chunks of a matrix are multiplied by several threads already
        hidden = model.model(mx.array([ids]))
        logits = model.output_head(hidden[0, every - 1 :: every])
        mx.eval(logits)
    return logits


def _divergence(theirs: Logits, ours: Logits) -> float:
    """KL(theirs || ours) of one token's predictions (V,), in nats.

    By numpy, whose exponential takes a tenth of the time of MLX's on a CPU.
    """
    theirs, ours = theirs - theirs.max(), ours - ours.max()
    weights = np.exp(theirs)
    total = weights.sum(dtype=np.float64)
    difference = np.dot(weights, theirs - ours) / total
    return float(difference - np.log(total) + np.log(np.exp(ours).sum(dtype=np.float64)))
