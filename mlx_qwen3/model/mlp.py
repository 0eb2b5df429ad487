"""Feed-forward layers: SwiGLU, and the mixture of experts that picks a few SwiGLUs per token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.model.activation import swiglu
from mlx_qwen3.model.config import MODE_DEFAULTS, ModelConfig
from mlx_qwen3.model.fused_projections import FusedProjections
from mlx_qwen3.model.lora_experts import LoRAExperts

Activation = Callable[[mx.array, mx.array], mx.array]


class MLP(FusedProjections):
    """SwiGLU: down(silu(gate(x)) * up(x)) (https://arxiv.org/abs/2002.05202)."""

    fused = ("gate_proj", "up_proj")
    activation: Activation = staticmethod(swiglu)

    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """x (B, L, hidden) -> (B, L, hidden)."""
        gate, up = self.project(x)  # (B, L, intermediate) each
        return self.down_proj(self.activation(gate, up))


class SparseMoeBlock(nn.Module):
    """Routes each token to its `num_experts_per_tok` best experts and mixes their outputs."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_experts_per_tok = config.num_experts_per_tok
        self.norm_topk_prob = config.norm_topk_prob
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.switch_mlp = SwitchMLP(config.hidden_size, config.moe_intermediate_size, config.num_experts)

    def __call__(self, x: mx.array) -> mx.array:
        """x (B, L, hidden) -> (B, L, hidden). N is B * L tokens, K experts per token."""
        tokens = x.reshape(-1, x.shape[-1])  # (N, hidden)
        experts, weights = self.route(tokens)  # (N, K)
        outputs = self.switch_mlp(tokens, experts)  # (N, K, hidden)
        return (outputs * weights[..., None]).sum(axis=1).reshape(x.shape)

    def route(self, tokens: mx.array) -> tuple[mx.array, mx.array]:
        """tokens (N, hidden) -> the chosen experts (N, K) and their weights (N, K)."""
        logits = self.gate(tokens)  # (N, experts)
        # Softmax keeps the order, so the best can be picked before it.
        k = self.num_experts_per_tok
        experts = mx.stop_gradient(mx.argpartition(logits, kth=-k, axis=-1)[..., -k:])
        # Softmax in fp32, as in training (`precise`), over the chosen alone where their weights sum to 1.
        if self.norm_topk_prob:
            weights = mx.softmax(mx.take_along_axis(logits, experts, axis=-1), axis=-1, precise=True)
        else:
            weights = mx.take_along_axis(mx.softmax(logits, axis=-1, precise=True), experts, axis=-1)
        return experts, weights.astype(tokens.dtype)


class SwitchMLP(FusedProjections):
    """The SwiGLUs of all experts, their matrices stacked along a first axis."""

    fused = ("gate_proj", "up_proj")
    activation: Activation = staticmethod(swiglu)
    # From this many (token, expert) pairs on, pairs are sorted so that each expert is read once.
    sort_from = 64
    # Whether the products of a few pairs read a token's row once for all its experts, in place of copies.
    shares_rows = False

    def __init__(self, hidden_size: int, intermediate_size: int, num_experts: int):
        super().__init__()
        self.gate_proj = SwitchLinear(hidden_size, intermediate_size, num_experts)
        self.up_proj = SwitchLinear(hidden_size, intermediate_size, num_experts)
        self.down_proj = SwitchLinear(intermediate_size, hidden_size, num_experts)

    def __call__(self, tokens: mx.array, experts: mx.array) -> mx.array:
        """Each token through each of its experts: tokens (N, hidden), experts (N, K) -> (N, K, hidden)."""
        N, K = experts.shape
        order: mx.array | None = None
        if experts.size >= self.sort_from:
            order = mx.argsort(experts.flatten())
            x, experts = tokens[order // K][:, None, :], experts.flatten()[order]  # (N * K, 1, hidden)
        elif self.shares_rows:
            x = tokens[:, None, None, :]  # (N, 1, 1, hidden), read by K experts each
        else:
            x, experts = mx.repeat(tokens, K, axis=0)[:, None, :], experts.flatten()

        gate, up = self.project(x, experts, order is not None)
        y = self.down_proj(self.activation(gate, up), experts, order is not None).squeeze(-2)
        if order is not None:
            y = y[mx.argsort(order)]
        return y.reshape(N, K, -1)


class _Experts(nn.Module):
    """What the matrices of all experts have in common, plain or quantized."""

    weight: mx.array

    def to_lora(self, r: int = 8, dropout: float = 0.0, scale: float = 20.0) -> LoRAExperts:
        """The same experts with a low-rank update to train; called by mlx-lm."""
        return LoRAExperts(self, r, dropout, scale)

    @property
    def num_experts(self) -> int:
        return self.weight.shape[0]

    @property
    def output_dims(self) -> int:
        return self.weight.shape[1]


class SwitchLinear(_Experts):
    """One matrix per expert. Each row of the input goes through the expert named for it."""

    def __init__(self, input_dims: int, output_dims: int, num_experts: int):
        super().__init__()
        scale = input_dims**-0.5
        self.weight = mx.random.uniform(-scale, scale, (num_experts, output_dims, input_dims))

    def __call__(self, x: mx.array, experts: mx.array, sorted_indices: bool = False) -> mx.array:
        """x (M, 1, in), experts (M,) -> (M, 1, out); or x (N, 1, 1, in), experts (N, K) -> (N, K, 1, out)."""
        weight = self.weight.swapaxes(-1, -2)  # (experts, in, out)
        return mx.gather_mm(x, weight, rhs_indices=experts, sorted_indices=sorted_indices)

    def to_quantized(
        self,
        group_size: int | None = None,
        bits: int | None = None,
        mode: str = "affine",
        **_: Any,  # `quantize_input`, which experts do not support
    ) -> QuantizedSwitchLinear:
        """The same experts with quantized matrices; called by `nn.quantize`."""
        default_bits, default_group_size = MODE_DEFAULTS[mode]
        quantized = QuantizedSwitchLinear(group_size or default_group_size, bits or default_bits, mode)
        quantized.weight, quantized.scales, *biases = mx.quantize(self.weight, **quantized.quantization)
        quantized.biases = biases[0] if biases else None
        return quantized

    def updated(self, update: mx.array, dequantize: bool = False) -> SwitchLinear:  # noqa: ARG002
        """Experts with `update` (experts, out, in) added to their matrices."""
        result = SwitchLinear(self.input_dims, self.output_dims, self.num_experts)
        result.weight = self.weight + update.astype(self.weight.dtype)
        return result

    @property
    def input_dims(self) -> int:
        return self.weight.shape[2]


class QuantizedSwitchLinear(_Experts):
    """SwitchLinear over quantized matrices, as MLX checkpoints store them (`switch_mlp.*`)."""

    weight: mx.array
    scales: mx.array
    biases: mx.array | None

    def __init__(self, group_size: int, bits: int, mode: str):
        super().__init__()
        self.group_size = group_size
        self.bits = bits
        self.mode = mode
        self.freeze()

    def __call__(self, x: mx.array, experts: mx.array, sorted_indices: bool = False) -> mx.array:
        """As SwitchLinear."""
        return mx.gather_qmm(
            x,
            self.weight,
            self.scales,
            self.biases,
            rhs_indices=experts,
            transpose=True,
            sorted_indices=sorted_indices,
            **self.quantization,
        )

    @property
    def quantization(self) -> dict[str, Any]:
        """Keyword arguments of `mx.quantize` and its relatives."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def updated(self, update: mx.array, dequantize: bool = False) -> SwitchLinear | QuantizedSwitchLinear:
        """Experts with `update` (experts, out, in) added to their matrices, quantized again by default."""
        result = SwitchLinear(self.input_dims, self.output_dims, self.num_experts)
        weight = mx.dequantize(self.weight, self.scales, self.biases, **self.quantization)
        result.weight = weight + update.astype(weight.dtype)
        return result if dequantize else result.to_quantized(**self.quantization)

    @property
    def input_dims(self) -> int:
        return self.weight.shape[2] * 32 // self.bits


def make_mlp(config: ModelConfig, layer_index: int) -> MLP | SparseMoeBlock:
    """The feed-forward part of layer `layer_index`."""
    if config.is_sparse_layer(layer_index):
        return SparseMoeBlock(config)
    return MLP(config.hidden_size, config.intermediate_size)
