"""Compares the predictions of a converted checkpoint with its source's, on a short text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.conversion.numerics import kl_divergence
from mlx_qwen3.conversion.source.tensors import SourceTensor
from mlx_qwen3.conversion.verification.streamed_model import OnBytes, streamed_model
from mlx_qwen3.errors import CheckpointError, TokenizerError
from mlx_qwen3.model.config import ModelConfig

MAX_TOKENS = 192
# Limits the memory for logits. With a large vocabulary, the predictions of fewer tokens are compared.
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
    """How far the predictions of a checkpoint are from its source's.

    Attributes:
        tokens: Number of predictions compared, evenly spread over a text.
        kl: Mean KL divergence from the source's predictions, in nats per token.
        top1: Fraction of the predictions with the same most likely token.
    """

    tokens: int
    kl: float
    top1: float


def probe(
    converted: Mapping[str, SourceTensor],
    source: Mapping[str, SourceTensor],
    config: ModelConfig,
    tokenizer_folder: Path,
    on_bytes: OnBytes | None = None,
) -> Probe:
    """Run both models, given by their tensors, on the same text.

    on_bytes: called with the bytes of weights that were read. Raises CheckpointError.
    """
    ids = probe_ids(tokenizer_folder, config.vocab_size)
    every = -(-len(ids) * config.vocab_size // MAX_LOGITS)
    expected, actual = (
        np.asarray(predictions(tensors, config, ids, on_bytes, every)) for tensors in (source, converted)
    )
    kl = kl_divergence(expected, actual)
    if not np.isfinite(kl):
        raise CheckpointError("predictions overflow: they are not finite numbers, though all weights are")
    agreement = (expected.argmax(axis=-1) == actual.argmax(axis=-1)).mean()
    return Probe(tokens=len(expected), kl=kl, top1=float(agreement))


def probe_ids(tokenizer_folder: Path, vocab_size: int) -> list[int]:
    """The first MAX_TOKENS ids of TEXT; random ids for a model without a tokenizer that fits."""
    try:
        ids = load_tokenizer(tokenizer_folder).encode(TEXT)[:MAX_TOKENS]
    except TokenizerError:
        ids = []
    if not ids or max(ids) >= vocab_size:
        return [int(token) for token in np.random.default_rng(0).integers(0, vocab_size, MAX_TOKENS)]
    return ids


def predictions(
    tensors: Mapping[str, SourceTensor],
    config: ModelConfig,
    ids: list[int],
    on_bytes: OnBytes | None = None,
    every: int = 1,
) -> mx.array:
    """ids (L,) -> logits (L / every, V) in fp32 of the model with these tensors, which stay on the disk.

    every: 3 returns the logits after the third token, the sixth and so on.
    """
    model = streamed_model(tensors, config, on_bytes)
    hidden = model.model(mx.array([ids]))
    logits = model.output_head(hidden[0, every - 1 :: every])
    mx.eval(logits)
    return logits
