"""Which matrices are quantized, and how: a recipe answers for each of a model's modules."""

from __future__ import annotations

from collections.abc import Callable

from mlx_qwen3.config import QUANTIZATION_MODES, Quantization
from mlx_qwen3.errors import ConversionError

Recipe = Callable[[str, int], Quantization | None]
"""(module path, row width) -> how its matrix is quantized, None to leave it as it is."""

# A router decides which experts run: an error there is not averaged away, and it is tiny.
ROUTER = "mlp.gate"
ROUTER_BITS = 8
ROUTER_GROUP_SIZES = (64, 32)


def quantization_for(bits: int | None, group_size: int | None, mode: str) -> Quantization | None:
    """The settings asked for: bits None is no quantization, group_size None the mode's own.

    Raises ConversionError for what MLX does not have.
    """
    if bits is None:
        if group_size is not None or mode != "affine":
            raise ConversionError("a group size or mode but no bits: nothing is quantized; give bits too")
        return None
    if mode not in QUANTIZATION_MODES:
        raise ConversionError(f"quantization mode {mode!r} is unknown; use {_list(QUANTIZATION_MODES)}")
    all_bits, group_sizes = QUANTIZATION_MODES[mode]
    if bits not in all_bits:
        raise ConversionError(f"{mode} has no {bits} bits; use {_list(all_bits)}")
    if group_size is None:
        group_size = 64 if 64 in group_sizes else group_sizes[0]
    if group_size not in group_sizes:
        raise ConversionError(f"{mode} has no groups of {group_size}; use {_list(group_sizes)}")
    return Quantization(bits, group_size, mode)


def uniform(quantization: Quantization) -> Recipe:
    """Everything alike, but routers at 8 bits; rows that groups do not divide stay unquantized."""

    def recipe(path: str, width: int) -> Quantization | None:
        if width % quantization.group_size:
            return None
        if path.endswith(ROUTER):
            return _router(width)
        return quantization

    return recipe


def _router(width: int) -> Quantization | None:
    fitting = [size for size in ROUTER_GROUP_SIZES if width % size == 0]
    return Quantization(ROUTER_BITS, fitting[0]) if fitting else None


def _list(values: object) -> str:
    return ", ".join(map(str, values))  # type: ignore[call-overload]
