"""Where a device's wishes live: the number format it computes in, how it multiplies, what it holds.

On Metal and CUDA a model's numbers stay as its checkpoint's are. `prepare` folds matrices that take
the same input into one (model/fold.py) and compiles the decoding step (model/step.py), so that less
has to be started for each token.

MLX's CPU backend gains nothing from either (docs/performance.md), and its 16-bit and quantized
kernels are ten to a hundred times slower than the BLAS it calls for fp32. There `prepare` makes a
model compute in fp32 and swaps the modules that hold matrices for the subclasses below. Names and
values of parameters stay, so saving, LoRA and `isinstance` checks work as before.

A matrix that fits the memory budget is held in fp32 (a quantized one besides its stored form, under
`_dense`, which MLX does not count as a parameter). Any other stays as stored, and is turned to fp32
a tile of output rows at a time whenever it is multiplied with; so are the scales of a quantized one.

How much memory there is, and what a Mac keeps from being swapped out, is asked and said here too.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import psutil  # type: ignore[import-untyped]

from mlx_qwen3.blas import is_plain
from mlx_qwen3.errors import InsufficientMemoryError
from mlx_qwen3.model.fold import Folding
from mlx_qwen3.model.mlp import MLP, QuantizedSwitchLinear, SwitchLinear, SwitchMLP, swiglu
from mlx_qwen3.model.qwen3 import Model

# How much of the memory that is free after loading may hold fp32 copies; the rest is for the KV
# cache, activations, and the machine's other work.
DENSE_SHARE = 0.5
# fp32 bytes of one tile of a matrix that is not held in fp32: small enough for a core's cache.
TILE_BYTES = 8 * 2**20
# fp32 bytes of what is dequantized at once for a copy that is held.
PART_BYTES = 8 * 2**20
# Up to this many rows a product is bound by reading the matrix. OpenBLAS reads it once, without
# rearranging it first, in products of at most a million multiplications: three times faster.
FEW_ROWS = 16
SMALL_PRODUCT = 999_000
# Up to this many rows MLX's quantized product beats dequantizing the matrix first.
QUANTIZED_ROWS = 2
# From this many rows an expert on, one BLAS product for each expert beats MLX's gathered product.
ROWS_PER_EXPERT = 4

# MLX's CPU backend runs one operation of a stream at a time, most of them on one core.
STREAMS = [mx.new_thread_local_stream(mx.Device(mx.cpu)) for _ in range(min(4, os.cpu_count() or 1))]

HALF = (mx.bfloat16, mx.float16)


def is_cpu() -> bool:
    """Whether MLX computes on the CPU."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def compute_dtype(stored: mx.Dtype) -> mx.Dtype:
    """The format in which weights stored as `stored` are computed with on this device."""
    return mx.float32 if is_cpu() and not is_plain() and stored in HALF else stored


def available_memory() -> int:
    """Bytes that arrays of this process may still take.

    What the user grants (`MLX_QWEN3_MEMORY=12GB`), else what a GPU's driver recommends, else the
    memory that is free, or less where a container has a limit. Raises InsufficientMemoryError for a
    grant that is no size.
    """
    if (granted := _granted_memory()) is not None:
        return max(0, granted - mx.get_active_memory())
    if not is_cpu() and (total := _gpu_memory()) is not None:
        return max(0, total - mx.get_active_memory())
    free = int(psutil.virtual_memory().available)
    limit, used = (_cgroup_bytes(f"memory.{name}") for name in ("max", "current"))
    return free if limit is None or used is None else max(0, min(free, limit - used))


def _granted_memory() -> int | None:
    text = os.environ.get("MLX_QWEN3_MEMORY", "").strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text, re.IGNORECASE)
    if match is None:
        raise InsufficientMemoryError(f"MLX_QWEN3_MEMORY is a size such as 12GB, not {text!r}")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def _gpu_memory() -> int | None:
    """What Metal recommends to take at most, or the memory of another GPU."""
    info = mx.device_info()
    sizes = [info.get(key) for key in ("max_recommended_working_set_size", "total_memory", "memory_size")]
    return next((int(size) for size in sizes if size), None)


def _cgroup_bytes(name: str) -> int | None:
    try:
        return int((Path("/sys/fs/cgroup") / name).read_text())
    except (OSError, ValueError):  # no container, or "max": no limit
        return None


def keep_resident(num_bytes: int) -> None:
    """Have a Mac keep up to `num_bytes` of the model in memory: else it is read from the disk again
    after other programs needed the memory. Does nothing elsewhere, or where macOS is too old for it."""
    if is_cpu() or not mx.metal.is_available():
        return
    most = int(mx.device_info()["max_recommended_working_set_size"])
    with suppress(RuntimeError, ValueError):
        mx.set_wired_limit(min(num_bytes, most))


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


def _fp32(array: mx.array) -> mx.array:
    """A 16-bit array in fp32, any other as it is."""
    return array.astype(mx.float32) if array.dtype in HALF else array


def _product(x: mx.array, weight: mx.array) -> mx.array:
    """x (..., in) @ weight (out, in).T -> (..., out), in fp32."""
    rows = x.size // x.shape[-1]
    step = SMALL_PRODUCT // (rows * x.shape[-1])
    if rows > FEW_ROWS or step == 0 or step >= weight.shape[0]:
        return x @ weight.T
    return _join(step, weight.shape[0], lambda tile: x @ weight[tile].T)


def _tiled(x: mx.array, out: int, matrix: Callable[[slice], mx.array]) -> mx.array:
    """x (..., in) -> (..., out), with rows of the fp32 matrix (out, in) made a tile at a time."""
    step = max(1, TILE_BYTES // (4 * x.shape[-1]))
    return _join(step, out, lambda tile: _finished(_product(x, matrix(tile))))


def _finished(tile: mx.array) -> mx.array:
    """`tile`, computed. MLX would take the memory of many matrices ahead of multiplying the first."""
    with suppress(ValueError):  # being traced by mx.compile: nothing can be computed yet
        mx.eval(tile)
    return tile


def _join(step: int, out: int, product: Callable[[slice], mx.array]) -> mx.array:
    return mx.concatenate([product(slice(i, i + step)) for i in range(0, out, step)], axis=-1)


class _Dense:
    """Holds its matrix in fp32 where the budget allows, else casts a tile at a time."""

    weight: mx.array

    def make_dense(self, budget: int) -> int:
        """Cast the matrix to fp32 if that takes at most `budget` more bytes; return how many it took."""
        extra = 4 * self.weight.size - self.weight.nbytes
        if not 0 < extra <= budget:
            return 0
        self.weight = self.weight.astype(mx.float32)
        return extra

    def _multiply(self, x: mx.array) -> mx.array:
        if self.weight.dtype == mx.float32:
            return _product(x, self.weight)
        return _tiled(x, self.weight.shape[0], lambda rows: self.weight[rows].astype(mx.float32))


class CpuLinear(_Dense, nn.Linear):
    """nn.Linear, its 16-bit matrix multiplied in fp32."""

    def __call__(self, x: mx.array) -> mx.array:
        y = self._multiply(x)
        return y + self.bias if "bias" in self else y


class CpuEmbedding(_Dense, nn.Embedding):
    """nn.Embedding that returns fp32, and as an output head multiplies in fp32."""

    def __call__(self, x: mx.array) -> mx.array:
        return self.weight[x].astype(mx.float32)

    def as_linear(self, x: mx.array) -> mx.array:
        return self._multiply(x)


def _unpacked(words: mx.array, bits: int) -> mx.array:
    """Packed words (..., n) -> their values (..., n, 32 / bits), in fp32.

    With a product and a sum this gives what MLX's dequantize gives, in half of its time on a CPU.
    """
    places = mx.arange(0, 32, bits, dtype=mx.uint32)
    return ((words[..., None] >> places) & (2**bits - 1)).astype(mx.float32)


def dequantize_fp32(
    weight: mx.array, scales: mx.array, biases: mx.array | None, *, group_size: int, bits: int, mode: str
) -> mx.array:
    """The numbers that packed words stand for, in fp32 whatever the scales are in."""
    scales, biases = _fp32(scales), None if biases is None else _fp32(biases)
    if is_cpu() and biases is not None and 32 % bits == 0:  # no value lies in two words
        values = _unpacked(weight, bits).reshape(*scales.shape, group_size)
        return (values * scales[..., None] + biases[..., None]).flatten(-2)
    settings: dict[str, Any] = {"group_size": group_size, "bits": bits, "mode": mode}
    return mx.dequantize(weight, scales, biases, dtype=mx.float32, **settings)


class _Quantized:
    """Holds an fp32 copy of its quantized matrix where the budget allows, else dequantizes tiles."""

    weight: mx.array
    scales: mx.array
    bits: int
    group_size: int
    mode: str

    def make_dense(self, budget: int) -> int:
        """Keep an fp32 copy if it takes at most `budget` bytes; return how many it took."""
        size = 4 * self.weight.size * 32 // self.bits
        if size > budget:
            return 0
        self._dense = self._all_dequantized()
        self._dense_of = self.weight  # the copy is of no use once other weights were loaded
        return size

    def _all_dequantized(self) -> mx.array:
        """The matrix in fp32, a few parts at a time: unpacking takes several times the room of its result."""
        rows = self.weight.shape[0]
        dense = mx.zeros((rows, self.weight.shape[-1] * 32 // self.bits))
        step = max(1, PART_BYTES * rows // dense.nbytes)
        starts = range(0, rows, step)
        for first in range(0, len(starts), len(STREAMS)):
            parts = {}
            for start, stream in zip(starts[first:], STREAMS, strict=False):
                with mx.stream(stream):
                    parts[start] = self._dequantized(slice(start, start + step))
            mx.eval(dense, list(parts.values()))
            for start, part in parts.items():
                dense[start : start + step] = part
        return dense

    def _dequantized(self, rows: slice | mx.array | int) -> mx.array:
        biases = self.get("biases")  # type: ignore[attr-defined]
        biases = None if biases is None else biases[rows]
        return dequantize_fp32(self.weight[rows], self.scales[rows], biases, **self._settings())

    def _settings(self) -> dict[str, Any]:
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def _held(self) -> mx.array | None:
        """The fp32 copy, if there is one of the present weights."""
        return self._dense if self.get("_dense_of") is self.weight else None  # type: ignore[attr-defined]

    def _multiply(self, x: mx.array) -> mx.array:
        x = _fp32(x)
        if (dense := self._held()) is not None:
            return _product(x, dense)
        if x.size // x.shape[-1] > QUANTIZED_ROWS:
            return _tiled(x, self.weight.shape[0], self._dequantized)
        biases = self.get("biases")  # type: ignore[attr-defined]
        return mx.quantized_matmul(x, self.weight, self.scales, biases, transpose=True, **self._settings())


class CpuQuantizedLinear(_Quantized, nn.QuantizedLinear):
    """nn.QuantizedLinear, multiplied in fp32."""

    def __call__(self, x: mx.array) -> mx.array:
        y = self._multiply(x)
        return y + self.bias if "bias" in self else y


class CpuQuantizedEmbedding(_Quantized, nn.QuantizedEmbedding):
    """nn.QuantizedEmbedding that returns fp32, and as an output head multiplies in fp32."""

    def __call__(self, x: mx.array) -> mx.array:
        return self._dequantized(x)

    def as_linear(self, x: mx.array) -> mx.array:
        return self._multiply(x)


class _Experts:
    """Multiplies with one expert after another where each has many rows, else as its base class."""

    def __call__(self, x: mx.array, experts: mx.array, is_sorted: bool = False) -> mx.array:
        """x (M, 1, in), experts (M,) -> (M, 1, out)."""
        x = _fp32(x)
        runs = self._runs(experts)
        if not runs:
            return super().__call__(x, experts, is_sorted)  # type: ignore[misc]
        return mx.concatenate([_product(x[start:stop], self._expert(i)) for i, start, stop in runs])

    def _runs(self, experts: mx.array) -> list[tuple[int, int, int]]:
        """(expert, first row, end) of the rows that go through one expert; none to gather instead."""
        if self._is_gathered(experts.size):
            return []
        try:
            chosen: list[int] = experts.tolist()  # type: ignore[assignment]
        except ValueError:  # being traced by mx.compile: which experts is not known yet
            return []
        ends = [i for i in range(1, len(chosen)) if chosen[i] != chosen[i - 1]] + [len(chosen)]
        return [(chosen[start], start, stop) for start, stop in zip([0, *ends], ends, strict=False)]

    def _is_gathered(self, rows: int) -> bool:
        """Whether MLX's gathered product is as fast for so many rows."""
        return rows < ROWS_PER_EXPERT * self.weight.shape[0]  # type: ignore[attr-defined]

    @abstractmethod
    def _expert(self, index: int) -> mx.array:
        """The matrix (out, in) of one expert, in fp32."""


class CpuSwitchLinear(_Experts, _Dense, SwitchLinear):
    """SwitchLinear, its 16-bit matrices multiplied in fp32."""

    def _is_gathered(self, rows: int) -> bool:
        return self.weight.dtype == mx.float32 and super()._is_gathered(rows)

    def _expert(self, index: int) -> mx.array:
        return self.weight[index].astype(mx.float32)


class CpuQuantizedSwitchLinear(_Experts, _Quantized, QuantizedSwitchLinear):
    """QuantizedSwitchLinear, multiplied in fp32."""

    def _expert(self, index: int) -> mx.array:
        return self._dequantized(index)


CPU_KINDS: dict[type, type] = {
    nn.Linear: CpuLinear,
    nn.Embedding: CpuEmbedding,
    nn.QuantizedLinear: CpuQuantizedLinear,
    nn.QuantizedEmbedding: CpuQuantizedEmbedding,
    SwitchLinear: CpuSwitchLinear,
    QuantizedSwitchLinear: CpuQuantizedSwitchLinear,
}
