"""Sums over rows that numpy computes faster than MLX on a CPU."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import is_cpu

Doubles = np.ndarray[Any, np.dtype[np.float64]]
Logits = np.ndarray[Any, np.dtype[np.float32]]


def row_dots(a: mx.array, b: mx.array) -> Doubles:
    """The dot product of each row of `a` with the same row of `b`, both (rows, width) fp32 -> (rows,).

    On a CPU numpy takes a fifth of MLX's time.
    """
    sums: Any = (a * b).sum(axis=-1) if not is_cpu() else np.einsum("ij,ij->i", np.asarray(a), np.asarray(b))
    return np.array(sums, np.float64)


def kl_divergence(expected: Logits, actual: Logits) -> float:
    """Mean KL(expected || actual) of the predictions of some tokens, from logits (N, V), in nats per token.

    NaN or infinity if the logits hold such. On a CPU numpy's exponential takes a tenth of MLX's time.
    """
    mean = sum(map(_token_divergence, expected, actual)) / len(expected)
    return float(np.maximum(mean, 0.0))  # rounding may bring it below zero


def _token_divergence(expected: Logits, actual: Logits) -> float:
    expected, actual = expected - expected.max(), actual - actual.max()
    weights = np.exp(expected)
    total = weights.sum(dtype=np.float64)
    difference = np.dot(weights, expected - actual) / total
    return float(difference - np.log(total) + np.log(np.exp(actual).sum(dtype=np.float64)))
