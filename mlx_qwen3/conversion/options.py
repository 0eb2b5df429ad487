"""The options of a conversion that decide what is written."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import mlx.core as mx

from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import MODE_DEFAULTS, QUANTIZATION_MODES, Quantization

MAX_SHARD_BYTES = 5 * 10**9
FLOATS = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}
PATHS = (str, PathLike)
Bits = int | Literal["default"] | None
"""Bits per weight: a number, None for weights that are not quantized, or what the other options imply."""


@dataclass(frozen=True)
class ConversionOptions:
    """The options of `convert` that decide what is written; it documents them.

    Raises ConversionError for a value of the wrong type.
    """

    bits: Bits = "default"
    group_size: int | None = None
    mode: str = "affine"
    dtype: str | None = None
    dequantize: bool = False
    recipe: str | None = None
    calibrate: str | Path | None = None
    target_bpw: float | None = None
    max_shard_bytes: int = MAX_SHARD_BYTES
    adapter: str | Path | None = None

    def __post_init__(self) -> None:
        check_type("mode", self.mode, (str,), "a name")
        if self.bits == "default":
            default, _ = MODE_DEFAULTS.get(self.mode, (4, 64))
            object.__setattr__(self, "bits", None if self.dequantize else default)
        check_type("bits", self.bits, (int, type(None)), "a whole number or None")
        check_type("group_size", self.group_size, (int, type(None)), "a whole number or None")
        check_type("dtype", self.dtype, (str, type(None)), "a name or None")
        check_type("recipe", self.recipe, (str, type(None)), "a name or None")
        check_type("calibrate", self.calibrate, (*PATHS, type(None)), "a file or None")
        check_type("target_bpw", self.target_bpw, (int, float, type(None)), "a number or None")
        check_type("adapter", self.adapter, (*PATHS, type(None)), "a folder or None")
        check_type("max_shard_bytes", self.max_shard_bytes, (int,), "a whole number")

    @property
    def stored_dtype(self) -> mx.Dtype | None:
        """The MLX type of `dtype`. Raises ConversionError if it has none."""
        if self.dtype is not None and self.dtype not in FLOATS:
            raise ConversionError(f"dtype {self.dtype!r} is unknown; use {', '.join(FLOATS)}")
        return FLOATS[self.dtype] if self.dtype else None

    @property
    def quantization(self) -> Quantization | None:
        """The quantization asked for, None without `bits`. Raises ConversionError if MLX does not have it."""
        if not isinstance(self.bits, int):
            if self.group_size is not None or self.mode != "affine":
                raise ConversionError("a group size or mode but no bits: nothing is quantized; give bits too")
            return None
        if self.dequantize:
            raise ConversionError(f"dequantizing gives no {self.bits} bits", [{"dequantize": True}])
        if self.mode not in QUANTIZATION_MODES:
            known = ", ".join(QUANTIZATION_MODES)
            raise ConversionError(f"quantization mode {self.mode!r} is unknown; use {known}")
        all_bits, group_sizes = QUANTIZATION_MODES[self.mode]
        if self.bits not in all_bits:
            raise ConversionError(f"{self.mode} has no {self.bits} bits; use {', '.join(map(str, all_bits))}")
        group_size = self.group_size
        if group_size is None:
            group_size = 64 if 64 in group_sizes else group_sizes[0]
        if group_size not in group_sizes:
            known = ", ".join(map(str, group_sizes))
            raise ConversionError(f"{self.mode} has no groups of {group_size}; use {known}")
        return Quantization(self.bits, group_size, self.mode)


def check_type(name: str, value: object, types: tuple[type, ...], expected: str) -> None:
    """Raise ConversionError unless the argument `name` has one of `types`; a bool is not a number."""
    if isinstance(value, bool) or not isinstance(value, types):
        raise ConversionError(f"{name} must be {expected}, not {value!r}")


def check_callback(name: str, value: object) -> None:
    """Raise ConversionError unless the argument `name` is None or can be called."""
    if value is not None and not callable(value):
        raise ConversionError(f"{name} must be a function or None, not {value!r}")
