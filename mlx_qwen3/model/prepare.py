"""Prepares a loaded model for MLX's device: dtype, fused projections, compiled decoding step, CPU layers.

On Metal and CUDA the numbers stay as the checkpoint stores them. `prepare` fuses matrices that take the
same input (fused_projections.py) and compiles the decoding step (compiled_step.py), so that fewer kernels
are started for each token.

MLX's CPU backend gains nothing from either (docs/performance.md), and its 16-bit and quantized kernels are
ten to a hundred times slower than the BLAS it calls for fp32. There `prepare` makes a model compute in fp32
and replaces the layers that hold matrices by those of cpu_layers.py. Parameters keep their names and values,
so saving, LoRA and `isinstance` checks work as before.
"""

from __future__ import annotations

import re

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.backend.blas import is_plain
from mlx_qwen3.backend.device import available_memory, is_cpu
from mlx_qwen3.backend.matmul import HALF
from mlx_qwen3.errors import ConfigError
from mlx_qwen3.model.activation import compiled_swiglu
from mlx_qwen3.model.compiled_step import CompiledStep
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.cpu_layers import CPU_LAYERS
from mlx_qwen3.model.fused_projections import FusedProjections
from mlx_qwen3.model.mlp import MLP, QuantizedSwitchLinear, SwitchLinear, SwitchMLP
from mlx_qwen3.model.qwen3 import Model

# The share of the memory that is free after loading that fp32 copies may take. The rest is for the KV
# cache, activations, and other programs.
DENSE_SHARE = 0.5
AUTO_DTYPE = "auto"
DTYPES = ("float16", "bfloat16", AUTO_DTYPE)
# Apple's M1 and M2 have no bfloat16 in hardware. MLX names their GPUs applegpu_g13 and g14.
EMULATES_BFLOAT16 = re.compile(r"applegpu_g1[34]")
WIDE = 4096  # the hidden size of the dense 8B


def compute_dtype(stored: mx.Dtype) -> mx.Dtype:
    """The dtype in which this device computes with weights stored as `stored`."""
    return mx.float32 if is_cpu() and not is_plain() and stored in HALF else stored


def cast_for_gpu(model: Model, setting: str = AUTO_DTYPE) -> None:
    """Store the 16-bit numbers of `model` in the dtype that a GPU is to compute in. Does nothing on a CPU.

    `auto` keeps them as the checkpoint has them, except on chips that emulate bfloat16: there it takes
    float16, unless the model is known to overflow it.

    Raises ConfigError if there is no such setting.
    """
    if setting not in DTYPES:
        raise ConfigError(f"dtype must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, not {setting!r}")
    if is_cpu():  # which computes in fp32
        return
    emulates = bool(EMULATES_BFLOAT16.search(str(mx.device_info().get("architecture", ""))))
    if setting == AUTO_DTYPE and (not emulates or _overflows_float16(model.args)):
        return
    dtype = mx.bfloat16 if setting == "bfloat16" else mx.float16
    for module in _leaves(model):
        for name, value in module.items():
            if isinstance(value, mx.array) and value.dtype in HALF:
                module[name] = value.astype(dtype)
        mx.eval(module.state)


def _overflows_float16(config: ModelConfig) -> bool:
    """Whether hidden states go beyond 65,504, as reported of the dense 8B and 32B."""
    return not config.num_experts and config.hidden_size >= WIDE


def prepare(model: nn.Module, budget: int | None = None) -> nn.Module:
    """Make `model` fast on MLX's default device, in place. Does nothing with `MLX_QWEN3_PLAIN=1`.

    Args:
        model: A model or a part of one, its weights loaded. They are evaluated.
        budget: Bytes that fp32 copies of matrices may take on the CPU; None is `DENSE_SHARE` of the
            free memory.

    Returns:
        `model`.
    """
    if is_plain():
        return model
    if not is_cpu():
        compile_for_gpu(model)
        return model
    mx.eval(model.parameters())
    budget = int(available_memory() * DENSE_SHARE) if budget is None else budget
    for module in _leaves(model):
        if cpu_layer := CPU_LAYERS.get(type(module)):
            module.__class__ = cpu_layer  # in place: other references to the module get the fast one too
            taken = module.make_dense(budget) if _gains_from_dense(module, model) else 0
            budget -= taken or _cast_scales(module, budget)
        _cast_vectors(module)
        mx.eval(module.state)
        mx.clear_cache()
    return model


def dense_copies_wanted(model: nn.Module, itemsize: int) -> int:
    """The budget with which `prepare` holds every matrix of `model` in fp32, where that pays; in bytes.

    itemsize: bytes of a stored number. The weights need not be loaded.
    """
    if not is_cpu() or is_plain() or itemsize >= 4:
        return 0
    wanted = 0
    for module in _leaves(model):
        if not CPU_LAYERS.get(type(module)):
            continue
        if _gains_from_dense(module, model):
            is_packed = module.weight.dtype == mx.uint32
            wanted += module.weight.size * (4 * 32 // module.bits if is_packed else 4 - itemsize)
        else:
            wanted += sum(module[name].size * (4 - itemsize) for name in _scales(module))
    return wanted


def compile_for_gpu(model: nn.Module) -> None:
    """Fuse projections and compile what can be, so that a GPU starts fewer and larger kernels."""
    for module in model.modules():
        if isinstance(module, FusedProjections):
            module.fuse()
            mx.clear_cache()  # the parts are freed, and too small for the next matrix: MLX would keep them
        if isinstance(module, MLP | SwitchMLP):
            module.activation = compiled_swiglu
        if isinstance(module, SwitchMLP):
            module.shares_rows = True
    if isinstance(model, Model):
        model.use_step(CompiledStep)


def _leaves(model: nn.Module) -> list[nn.Module]:
    """Modules without children; experts come last, because the others are read whole for every token.

    The largest come first: while a matrix is cast, memory holds both forms, and it is not full yet.
    """
    leaves = [leaf for _, leaf in model.named_modules() if not leaf.children()]

    def order(leaf: nn.Module) -> tuple[bool, int]:
        weight = leaf.get("weight")
        return isinstance(leaf, SwitchLinear | QuantizedSwitchLinear), -(0 if weight is None else weight.size)

    return sorted(leaves, key=order)


def _gains_from_dense(module: nn.Module, model: nn.Module) -> bool:
    """Whether an fp32 copy is worth its memory.

    Not for an embedding that is no output head: few of its rows are read. Not for quantized experts: the
    copy is eight times as large for a seventh of the time.
    """
    if isinstance(module, nn.Embedding | nn.QuantizedEmbedding):
        return "lm_head" not in model and model.args.has_output_head
    return not isinstance(module, QuantizedSwitchLinear)


def _cast_vectors(module: nn.Module) -> None:
    """Cast norm weights and the biases of linear layers to fp32. `make_dense` casts matrices."""
    for name, value in module.parameters().items():
        if isinstance(value, mx.array) and value.dtype in HALF and value.ndim < 2:
            module[name] = value.astype(mx.float32)


def _scales(module: nn.Module) -> list[str]:
    """The names of a quantized module's 16-bit scales and biases."""
    if module.get("scales") is None or module.scales.dtype == mx.uint8:
        return []
    return [name for name in ("scales", "biases") if module.get(name) is not None]


def _cast_scales(module: nn.Module, budget: int) -> int:
    """Cast scales and biases to fp32 if that takes at most `budget` more bytes; return how many it took.

    Otherwise they are cast for every product.
    """
    names = [name for name in _scales(module) if module[name].dtype in HALF]
    extra = sum(module[name].nbytes for name in names)
    if extra > budget:
        return 0
    for name in names:
        module[name] = module[name].astype(mx.float32)
    return extra
