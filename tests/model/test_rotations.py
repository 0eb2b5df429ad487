"""Rotations that are kept are those that an embedding computes, at any positions and in any order."""

from __future__ import annotations

import random

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3.model.config import RopeScaling
from mlx_qwen3.model.cpu import rotations
from mlx_qwen3.model.cpu.rotations import Rotations
from mlx_qwen3.model.rope import RoPE, YarnRoPE

HEAD_DIM = 32


def pairs(rows: int) -> mx.array:
    return mx.broadcast_to(
        mx.array([1.0] * (HEAD_DIM // 2) + [0.0] * (HEAD_DIM // 2)), (1, 1, rows, HEAD_DIM)
    )


@pytest.mark.parametrize("most", [rotations.KEPT_NUMBERS, 3 * rotations.BLOCK * HEAD_DIM])
def test_kept_rotations_are_those_of_the_embedding(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(rotations, "KEPT_NUMBERS", most)
    kept, draw = Rotations(HEAD_DIM), random.Random(0)
    ropes = [RoPE(HEAD_DIM, 1e6), YarnRoPE(HEAD_DIM, 1e6, RopeScaling(4.0, 32_768))]
    for _ in range(40):
        rope = draw.choice(ropes)
        spans = [
            (draw.choice([0, 63, 64, 131_000, draw.randrange(40_000)]), draw.choice([1, 1, 2, 65, 200]))
            for _ in range(draw.randrange(1, 5))
        ]
        out = np.empty((sum(rows for _, rows in spans), HEAD_DIM), np.float32)
        kept.fill(out, rope, spans)
        expected = [np.array(rope(pairs(rows), offset=position))[0, 0] for position, rows in spans]
        np.testing.assert_array_equal(out, np.concatenate(expected))
