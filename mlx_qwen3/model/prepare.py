"""Where a device's wishes are met: the number format it computes in, how it multiplies, what it holds.

On Metal and CUDA a model's numbers stay as its checkpoint's are. `prepare` folds matrices that take
the same input into one (model/fold.py) and compiles the decoding step (model/step.py), so that less
has to be started for each token.

MLX's CPU backend gains nothing from either (docs/performance.md), and its 16-bit and quantized
kernels are ten to a hundred times slower than the BLAS it calls for fp32. There `prepare` makes a
model compute in fp32 and swaps the modules that hold matrices for those of cpu_modules.py. Names and
values of parameters stay, so saving, LoRA and `isinstance` checks work as before.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.backend.blas import is_plain
from mlx_qwen3.backend.device import available_memory, is_cpu
from mlx_qwen3.backend.matmul import HALF
from mlx_qwen3.model.cpu_layers import CPU_KINDS
from mlx_qwen3.model.fused_projections import Folding
from mlx_qwen3.model.mlp import MLP, QuantizedSwitchLinear, SwitchLinear, SwitchMLP, swiglu
from mlx_qwen3.model.qwen3 import Model

# How much of the memory that is free after loading may hold fp32 copies; the rest is for the KV
# cache, activations, and the machine's other work.
DENSE_SHARE = 0.5


def compute_dtype(stored: mx.Dtype) -> mx.Dtype:
    """The format in which weights stored as `stored` are computed with on this device."""
    return mx.float32 if is_cpu() and not is_plain() and stored in HALF else stored


def prepare(model: nn.Module, budget: int | None = None) -> nn.Module:
    """Make `model`, its weights loaded, fast on MLX's default device; returns the same model.

    budget: bytes that fp32 copies of matrices may take on the CPU; None is `DENSE_SHARE` of the free
    memory. Evaluates the weights. Does nothing with `MLX_QWEN3_PLAIN=1`.
    """
    if is_plain():
        return model
    if not is_cpu():
        start_less(model)
        return model
    mx.eval(model.parameters())
    budget = int(available_memory() * DENSE_SHARE) if budget is None else budget
    for module in _leaves(model):
        if kind := CPU_KINDS.get(type(module)):
            module.__class__ = kind  # in place: whoever holds the module holds the fast one
            taken = module.make_dense(budget) if _gains_from_dense(module, model) else 0
            budget -= taken or _cast_scales(module, budget)
        _cast_vectors(module)
        mx.eval(module.state)
        mx.clear_cache()
    return model


def wanted_copies(model: nn.Module, itemsize: int) -> int:
    """The budget with which `prepare` would hold every matrix of `model` in fp32, where that pays.

    itemsize: bytes of the numbers it is stored in. The weights need not be loaded.
    """
    if not is_cpu() or is_plain() or itemsize >= 4:
        return 0
    wanted = 0
    for module in _leaves(model):
        if not CPU_KINDS.get(type(module)):
            continue
        if _gains_from_dense(module, model):
            is_packed = module.weight.dtype == mx.uint32
            wanted += module.weight.size * (4 * 32 // module.bits if is_packed else 4 - itemsize)
        else:
            wanted += sum(module[name].size * (4 - itemsize) for name in _scales(module))
    return wanted


compiled_swiglu = mx.compile(swiglu, shapeless=True)


def start_less(model: nn.Module) -> None:
    """Fold matrices and compile what can be, so that a device is given fewer and larger pieces of work."""
    for module in model.modules():
        if isinstance(module, Folding):
            module.fold()
        if isinstance(module, MLP | SwitchMLP):
            module.activation = compiled_swiglu
    if isinstance(model, Model):
        model.compile_step()


def _leaves(model: nn.Module) -> list[nn.Module]:
    """Modules without children; those read whole for every token come before experts.

    The largest come first: while a matrix is cast, both forms are there, and memory is not full yet.
    """
    leaves = [leaf for _, leaf in model.named_modules() if not leaf.children()]

    def order(leaf: nn.Module) -> tuple[bool, int]:
        weight = leaf.get("weight")
        return isinstance(leaf, SwitchLinear | QuantizedSwitchLinear), -(0 if weight is None else weight.size)

    return sorted(leaves, key=order)


def _gains_from_dense(module: nn.Module, model: nn.Module) -> bool:
    """Whether fp32 rows are worth their memory: not where few are read (an embedding that is no output
    head), nor for quantized experts, eight times as large for a seventh of the time."""
    if isinstance(module, nn.Embedding | nn.QuantizedEmbedding):
        return "lm_head" not in model
    return not isinstance(module, QuantizedSwitchLinear)


def _cast_vectors(module: nn.Module) -> None:
    """Norm weights and biases of sums to fp32; matrices are left to `make_dense`."""
    for name, value in module.parameters().items():
        if isinstance(value, mx.array) and value.dtype in HALF and value.ndim < 2:
            module[name] = value.astype(mx.float32)


def _scales(module: nn.Module) -> list[str]:
    """The names of a quantized module's 16-bit scales and offsets."""
    if module.get("scales") is None or module.scales.dtype == mx.uint8:
        return []
    return [name for name in ("scales", "biases") if module.get(name) is not None]


def _cast_scales(module: nn.Module, budget: int) -> int:
    """Scales to fp32, which else are cast whenever used, if that takes at most `budget` more bytes."""
    names = [name for name in _scales(module) if module[name].dtype in HALF]
    extra = sum(module[name].nbytes for name in names)
    if extra > budget:
        return 0
    for name in names:
        module[name] = module[name].astype(mx.float32)
    return extra
