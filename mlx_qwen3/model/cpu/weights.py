"""The weights of a model, as the kernels of the CPU find them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.backend.native.layout import LANES, PLAIN, Format
from mlx_qwen3.backend.native.program import Stored
from mlx_qwen3.backend.stored_matrix import FEW_ROWS, StoredMatrix, address_of
from mlx_qwen3.model.cpu_layers import CPU_LAYERS
from mlx_qwen3.model.mlp import MLP, SparseMoeBlock
from mlx_qwen3.model.qwen3 import Model, TransformerBlock

# Up to this many rows a mixture of experts is part of the program: of more rows, some share their experts.
FEW_EXPERT_ROWS = 4


@dataclass(frozen=True)
class Shape:
    """Sizes of a model that its kernels are told. Vectors of kernels divide all of them."""

    hidden: int
    heads: int
    key_heads: int
    head_dim: int
    scale: float
    eps: float

    @property
    def group(self) -> int:
        """Query heads of a key head."""
        return self.heads // self.key_heads


def _vector(norm: nn.RMSNorm) -> int:
    """Where the weight of a norm is; one that is a view of another array becomes an array of its own."""
    norm.weight = mx.contiguous(norm.weight)
    mx.eval(norm.weight)
    return address_of(norm.weight)


class Layer:
    """The matrices of a layer, and the addresses of its norms' weights."""

    def __init__(self, block: TransformerBlock):
        attention = block.self_attn
        self.q, self.k, self.v, self.o = (
            _stored(attention[name]) for name in ("q_proj", "k_proj", "v_proj", "o_proj")
        )
        self.input_norm = _vector(block.input_layernorm)
        self.q_norm, self.k_norm = _vector(attention.q_norm), _vector(attention.k_norm)
        self.mlp_norm = _vector(block.post_attention_layernorm)
        self.rope = attention.rope
        self.experts: SparseMoeBlock | None = None
        self.num_experts = self.chosen = 1
        mlp = block.mlp
        if isinstance(mlp, SparseMoeBlock):
            self.experts = mlp
            self.router = _stored(mlp.gate)
            self.num_experts = mlp.switch_mlp.gate_proj.weight.shape[0]
            self.chosen = mlp.num_experts_per_tok
            mlp = mlp.switch_mlp
        self.gate, self.up, self.down = (_stored(mlp[name]) for name in ("gate_proj", "up_proj", "down_proj"))

    @property
    def inner_numbers(self) -> int:
        """Numbers between gate and down, of one row."""
        return self.gate.stored.outputs // self.num_experts * self.chosen

    def one_expert(self, matrix: StoredMatrix) -> Stored:
        """The first expert's matrix, which those of the others follow."""
        return matrix.stored.part(0, matrix.stored.outputs // self.num_experts)


class Weights:
    """All of a model's."""

    def __init__(self, model: Model):
        args = model.args
        attention = model.layers[0].self_attn
        heads, key_heads = args.num_attention_heads, args.num_key_value_heads
        self.shape = Shape(
            args.hidden_size, heads, key_heads, args.head_dim, attention.scale, args.rms_norm_eps
        )
        self.layers = [Layer(block) for block in model.layers]
        self.embedding = _stored(model.model.embed_tokens)
        self.norm = _vector(model.model.norm)
        self.head = _stored(model.lm_head) if "lm_head" in model else self.embedding

    @property
    def formats(self) -> set[Format]:
        """How the matrices are stored; fp32 is among them, for attention."""
        matrices = [self.embedding, self.head]
        for layer in self.layers:
            matrices += [layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down]
            matrices += [layer.router] if layer.experts is not None else []
        return {matrix.stored.fmt for matrix in matrices} | {PLAIN}

    @property
    def expert_formats(self) -> set[Format]:
        """How the matrices of experts are stored."""
        sparse = [layer for layer in self.layers if layer.experts is not None]
        return {matrix.stored.fmt for layer in sparse for matrix in (layer.gate, layer.up, layer.down)}

    @property
    def fits_few_rows(self) -> int:
        """Up to how many rows one program computes a pass."""
        sparse = [layer for layer in self.layers if layer.experts is not None]
        if any(layer.num_experts % LANES for layer in sparse):
            return 0
        return FEW_EXPERT_ROWS if sparse else FEW_ROWS


def supports(model: Model) -> bool:
    """Whether a pass of this model can be computed by kernels: all of its layers are those of `prepare`."""
    args = model.args
    sizes = [args.hidden_size, args.head_dim // 2]
    kinds = set(CPU_LAYERS.values())
    matrices: list[nn.Module] = [model.model.embed_tokens]
    if "lm_head" in model:
        matrices.append(model.lm_head)
    norms = [model.model.norm]
    for block in model.layers:
        attention, mlp = block.self_attn, cast(Any, block.mlp)
        matrices += [attention[name] for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
        norms += [block.input_layernorm, block.post_attention_layernorm, attention.q_norm, attention.k_norm]
        if isinstance(mlp, SparseMoeBlock):
            matrices.append(mlp.gate)
            mlp = mlp.switch_mlp
        elif not isinstance(mlp, MLP):
            return False
        matrices += [mlp[name] for name in ("gate_proj", "up_proj", "down_proj")]
        if type(mlp.gate_proj) in kinds:
            sizes.append(_outputs(mlp.gate_proj))
    return (
        all(size % LANES == 0 for size in sizes)
        and all(type(matrix) in kinds and "bias" not in matrix for matrix in matrices)
        and all(type(norm) is nn.RMSNorm and norm.weight.dtype == mx.float32 for norm in norms)
    )


def _outputs(module: nn.Module) -> int:
    return int(module.weight.shape[-2])


def _stored(module: Any) -> StoredMatrix:
    matrix: StoredMatrix | None = module.stored()
    assert matrix is not None
    return matrix
