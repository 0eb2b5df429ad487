"""Prepares a loaded model for MLX's device: dtype, fused projections, compiled decoding step, CPU layers.

On Metal and CUDA the numbers stay as the checkpoint stores them. `prepare` fuses matrices that take the
same input (fused_projections.py) and compiles the decoding step (compiled_step.py), so that fewer kernels
are started for each token.

MLX's CPU backend is ten to a hundred times slower than the processor. There `prepare` makes a model compute
in fp32, replaces the layers that hold matrices by those of cpu_layers.py, and has whole passes computed by
cpu/step.py. Matrices stay as they are stored, and parameters keep their names and values, so saving, LoRA
and `isinstance` checks work as before.
"""

from __future__ import annotations

import re

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.backend.matmul import HALF
from mlx_qwen3.backend.switches import has_kernels, is_plain
from mlx_qwen3.errors import ConfigError
from mlx_qwen3.model.activation import compiled_swiglu
from mlx_qwen3.model.compiled_step import CompiledStep
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.cpu_layers import CPU_LAYERS
from mlx_qwen3.model.fused_projections import FusedProjections
from mlx_qwen3.model.mlp import MLP, SwitchMLP
from mlx_qwen3.model.qwen3 import Model

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


def prepare(model: nn.Module) -> nn.Module:
    """Make `model` fast on MLX's default device, in place. Does nothing with `MLX_QWEN3_PLAIN=1`.

    Args:
        model: A model or a part of one, its weights loaded. They are evaluated.

    Returns:
        `model`.
    """
    if is_plain():
        return model
    if not is_cpu():
        compile_for_gpu(model)
        return model
    mx.eval(model.parameters())
    for module in _leaves(model):
        if cpu_layer := CPU_LAYERS.get(type(module)):
            module.__class__ = cpu_layer  # in place: other references to the module get the fast one too
        _cast_vectors(module)
    mx.eval(model.parameters())
    if has_kernels() and isinstance(model, Model):
        _use_kernels(model)
    return model


def _use_kernels(model: Model) -> None:
    from mlx_qwen3.model.cpu.step import CpuStep
    from mlx_qwen3.model.cpu.weights import supports

    model.use_step(lambda model: CpuStep(model) if supports(model) else None)


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
    """Modules without children. The largest come first: while a matrix is cast, memory holds both forms."""
    leaves = [leaf for _, leaf in model.named_modules() if not leaf.children()]
    return sorted(leaves, key=lambda leaf: -sum(value.size for value in leaf.state.values()))


def _cast_vectors(module: nn.Module) -> None:
    """Cast norm weights and the biases of linear layers to fp32."""
    for name, value in module.parameters().items():
        if isinstance(value, mx.array) and value.dtype in HALF and value.ndim < 2:
            module[name] = value.astype(mx.float32)
