"""Rotary position embeddings: plain RoPE, and YaRN for contexts longer than those of training.

Rotated pairs are (i, i + D/2), as in the published weights: MLX's `traditional=False`.
"""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.model.config import ModelConfig, RopeScaling


class RoPE(nn.Module):
    """Rotates pair i of each head by position * theta^(-2i/D) (https://arxiv.org/abs/2104.09864)."""

    def __init__(self, head_dim: int, theta: float):
        super().__init__()
        self.head_dim = head_dim
        self.theta = theta

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Rotate x (B, H, L, D) to positions from `offset` on; `offset` (B,) differs between sequences."""
        return mx.fast.rope(x, self.head_dim, traditional=False, base=self.theta, scale=1.0, offset=offset)

    def shift(self, x: mx.array, by: int) -> mx.array:
        """Move rotated rows x (B, H, L, D) by `by` positions, backwards if negative."""
        B, H, L, D = x.shape
        # Rotations add up. With L as heads, every row is rotated to the same position, `by`.
        return self(x.reshape(B, H * L, 1, D), offset=by).reshape(x.shape)


class YarnRoPE(nn.Module):
    """YaRN (https://arxiv.org/abs/2309.00071): RoPE that keeps fast frequencies and interpolates slow ones.

    Frequencies that turn more than `beta_fast` times within the original context are kept. Those
    that turn less than `beta_slow` times are divided by the factor. Between them is a linear ramp.
    """

    def __init__(self, head_dim: int, theta: float, scaling: RopeScaling):
        super().__init__()
        self.head_dim = head_dim
        self.attention_factor = scaling.attention_factor or yarn_attention_factor(scaling.factor)
        self._wavelengths = mx.array(yarn_wavelengths(head_dim, theta, scaling))  # (D/2,), radians^-1

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Rotate x (B, H, L, D) to positions from `offset` on, and multiply it by `attention_factor`."""
        return self._rotate(x * self.attention_factor, offset)

    def shift(self, x: mx.array, by: int) -> mx.array:
        """Move rotated rows x (B, H, L, D) by `by` positions, backwards if negative."""
        B, H, L, D = x.shape
        # As in RoPE.shift. The rows were multiplied by `attention_factor` when they were rotated first.
        return self._rotate(x.reshape(B, H * L, 1, D), by).reshape(x.shape)

    def _rotate(self, x: mx.array, offset: int | mx.array) -> mx.array:
        freqs = self._wavelengths
        return mx.fast.rope(
            x, self.head_dim, traditional=False, base=None, scale=1.0, offset=offset, freqs=freqs
        )


def yarn_attention_factor(factor: float) -> float:
    """YaRN's factor for q and k, which keeps attention as sharp as in training: 0.1 ln(factor) + 1."""
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def yarn_wavelengths(head_dim: int, theta: float, scaling: RopeScaling) -> list[float]:
    """1 / frequency of each of the D/2 pairs, in positions per radian, as `mx.fast.rope` takes them."""

    def pair_turning(times: float) -> float:
        """The (fractional) pair that turns `times` times within the original context."""
        turns_of_first = scaling.original_max_position_embeddings / (2 * math.pi)
        return head_dim * math.log(turns_of_first / times) / (2 * math.log(theta))

    low, high = pair_turning(scaling.beta_fast), pair_turning(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = max(high - low, 0.001)  # the ramp of a tiny model can have no width

    def wavelength(pair: int) -> float:
        interpolated = min(max((pair - low) / width, 0.0), 1.0)
        original = theta ** (2 * pair / head_dim)
        return original / (interpolated / scaling.factor + 1 - interpolated)

    return [wavelength(pair) for pair in range(head_dim // 2)]


def make_rope(config: ModelConfig) -> RoPE | YarnRoPE:
    """The rotary embedding of `config`."""
    if config.rope_scaling is None:
        return RoPE(config.head_dim, config.rope_theta)
    return YarnRoPE(config.head_dim, config.rope_theta, config.rope_scaling)
