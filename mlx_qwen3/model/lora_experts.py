"""LoRAExperts: a low-rank update for each expert, as mlx-lm trains and saves it."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn


class LoRAExperts(nn.Module):
    """W + scale * B A for each expert (https://arxiv.org/abs/2106.09685); only A and B are trained.

    Its parameters are named and shaped as in mlx-lm, so adapters go both ways.
    """

    def __init__(self, linear: nn.Module, r: int, dropout: float, scale: float):
        """linear: a SwitchLinear, plain or quantized. r: the rank. dropout: of the update's input."""
        super().__init__()
        bound = linear.input_dims**-0.5
        self.linear = linear
        self.dropout = nn.Dropout(p=dropout)
        self.scale = scale
        self.lora_a = mx.random.uniform(-bound, bound, (linear.num_experts, r, linear.input_dims))
        self.lora_b = mx.zeros((linear.num_experts, linear.output_dims, r))  # the update begins as nothing

    def __call__(self, x: mx.array, experts: mx.array, sorted_indices: bool = False) -> mx.array:
        """As SwitchLinear."""

        def product(x: mx.array, matrices: mx.array) -> mx.array:
            return mx.gather_mm(
                x, matrices.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=sorted_indices
            )

        y = self.linear(x, experts, sorted_indices)
        update = product(product(self.dropout(x), self.lora_a), self.lora_b)
        return y + (self.scale * update).astype(y.dtype)

    def fuse(self, dequantize: bool = False) -> nn.Module:
        """The matrices with the update added, quantized as before unless `dequantize`."""
        return self.linear.updated((self.scale * self.lora_b) @ self.lora_a, dequantize)
