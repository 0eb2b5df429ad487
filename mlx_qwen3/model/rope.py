"""Rotary position embeddings: plain RoPE, and YaRN for contexts beyond those trained on.

Pairs are (i, i + D/2), as in the published weights: MLX's `traditional=False`.
"""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.model.config import ModelConfig, RopeScaling


class RoPE(nn.Module):
    """Rotates each pair of a head by position x theta^(-2i/D) (https://arxiv.org/abs/2104.09864)."""

    def __init__(self, head_dim: int, theta: float):
        super().__init__()
        self.head_dim = head_dim
        self.theta = theta

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Rotate x (B, H, L, D); its first row stands at position `offset`, or offset[b] of row b."""
        return mx.fast.rope(x, self.head_dim, traditional=False, base=self.theta, scale=1.0, offset=offset)

    def shift(self, x: mx.array, by: int) -> mx.array:
        """Move rotated rows x (B, H, L, D) `by` positions further on, back if negative."""
        B, H, L, D = x.shape
        # As rows of their own, all at position `by`: rotations add up.
        return self(x.reshape(B, H * L, 1, D), offset=by).reshape(x.shape)


class YarnRoPE(nn.Module):
    """RoPE whose slow frequencies are interpolated and whose fast ones are kept (YaRN).

    Frequencies that turn more than `beta_fast` times within the original context are kept, those
    that turn less than `beta_slow` times are divided by the factor, with a linear ramp between.
    """

    def __init__(self, head_dim: int, theta: float, scaling: RopeScaling):
        super().__init__()
        self.head_dim = head_dim
        self.attention_factor = scaling.attention_factor or yarn_attention_factor(scaling.factor)
        self._wavelengths = mx.array(yarn_wavelengths(head_dim, theta, scaling))  # (D/2,), radians^-1

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Rotate and scale x (B, H, L, D); its first row stands at position `offset`."""
        return self._rotate(x * self.attention_factor, offset)

    def shift(self, x: mx.array, by: int) -> mx.array:
        """Move rotated rows x (B, H, L, D) `by` positions further on, back if negative."""
        B, H, L, D = x.shape
        # As rows of their own, all at position `by`: rotations add up. They are scaled already.
        return self._rotate(x.reshape(B, H * L, 1, D), by).reshape(x.shape)

    def _rotate(self, x: mx.array, offset: int | mx.array) -> mx.array:
        return mx.fast.rope(
            x,
            self.head_dim,
            traditional=False,
            base=None,
            scale=1.0,
            offset=offset,
            freqs=self._wavelengths,
        )


def yarn_attention_factor(factor: float) -> float:
    """What YaRN multiplies q and k with, to keep attention as sharp as it was in training."""
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def yarn_wavelengths(head_dim: int, theta: float, scaling: RopeScaling) -> list[float]:
    """Positions per radian of each of the D/2 pairs: 1 / frequency, the form `mx.fast.rope` takes."""

    def pair_turning(times: float) -> float:
        """The (fractional) pair that turns `times` times within the original context."""
        turns_of_first = scaling.original_max_position_embeddings / (2 * math.pi)
        return head_dim * math.log(turns_of_first / times) / (2 * math.log(theta))

    low = max(math.floor(pair_turning(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_turning(scaling.beta_slow)), head_dim - 1)
    width = max(high - low, 0.001)  # the ramp of a tiny model can have no width

    def wavelength(pair: int) -> float:
        interpolated = min(max((pair - low) / width, 0.0), 1.0)
        original = theta ** (2 * pair / head_dim)
        return original / (interpolated / scaling.factor + 1 - interpolated)

    return [wavelength(pair) for pair in range(head_dim // 2)]


def make_rope(config: ModelConfig) -> RoPE | YarnRoPE:
    """The rotary embedding `config` asks for, the same for dense and mixture models."""
    if config.rope_scaling is None:
        return RoPE(config.head_dim, config.rope_theta)
    return YarnRoPE(config.head_dim, config.rope_theta, config.rope_scaling)
