"""How weights are quantized: in MLX's own modes, or packed by another program.

Qwen publishes most models as FP8, AWQ and GPTQ too, and others use compressed-tensors. Their config.json
has a `quantization_config` with a `quant_method`. Only what cannot be told from the tensors is read from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_qwen3.errors import ConfigError
from mlx_qwen3.model.config_fields import boolean, integer_among, mapping, shown, with_default

QUANTIZATION_MODES = {
    # mode: (bits, group sizes) that MLX supports
    "affine": ((2, 3, 4, 5, 6, 8), (32, 64, 128)),
    "mxfp4": ((4,), (32,)),
    "mxfp8": ((8,), (32,)),
    "nvfp4": ((4,), (16,)),
}
MODE_DEFAULTS = {"affine": (4, 64), "mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
"""Bits and group size that MLX takes where a mode is given without them."""
MAX_BLOCK = 2**20


@dataclass(frozen=True)
class Quantization:
    """How MLX stores quantized weights: `bits` per value, one scale per `group_size` values.

    overrides: for layers that differ, by module path; None is a layer that is not quantized.
    """

    bits: int = 4
    group_size: int = 64
    mode: str = "affine"
    overrides: Mapping[str, Quantization | None] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Quantization:
        """Parse the `quantization` entry of an MLX config.json, with its overrides for layers."""
        mode = with_default(raw, "mode", "affine")
        if not isinstance(mode, str) or mode not in QUANTIZATION_MODES:
            modes = ", ".join(QUANTIZATION_MODES)
            raise ConfigError(f"config.json: quantization mode {shown(mode)} is unknown; known: {modes}")
        supported_bits, group_sizes = QUANTIZATION_MODES[mode]
        bits, group_size = MODE_DEFAULTS[mode]
        return cls(
            bits=integer_among(raw, "bits", supported_bits, bits),
            group_size=integer_among(raw, "group_size", group_sizes, group_size),
            mode=mode,
            overrides={
                key: None if value is False else cls.from_dict(value)
                for key, value in raw.items()
                if isinstance(value, Mapping) or value is False
            },
        )

    def for_layer(self, path: str) -> Quantization | None:
        """The quantization of the module at `path`; None if it is not quantized."""
        return self.overrides.get(path, self)

    def mlx_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `mx.quantize` and its relatives."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def to_dict(self) -> dict[str, Any]:
        """The `quantization` entry of config.json."""
        layers = {path: layer.mlx_arguments() if layer else False for path, layer in self.overrides.items()}
        return {**self.mlx_arguments(), **layers}


@dataclass(frozen=True)
class Packing:
    """How another program packed the weights.

    Attributes:
        method: `fp8`, `awq`, `gptq` or `compressed-tensors`.
        block: Rows and columns that share a scale in FP8; None where the scales' shape tells it.
        has_order: GPTQ: columns may belong to groups in any order (`desc_act`).
        zeros_less_one: GPTQ: zero points are stored less one, as all but version 2 of the format has them.
    """

    method: str
    block: tuple[int, int] | None = None
    has_order: bool = False
    zeros_less_one: bool = False

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Packing:
        """Parse a `quantization_config` with a `quant_method`. Raises ConfigError for what is not read."""
        method = raw["quant_method"]
        parse = {"fp8": _fp8, "awq": _awq, "gptq": _gptq, "compressed-tensors": _compressed_tensors}
        if not isinstance(method, str) or method not in parse:
            raise ConfigError(
                f"config.json: the weights are quantized with {shown(method)}, which this package does not "
                f"read; it reads {', '.join(parse)} and GGUF"
            )
        return parse[method](raw)


def _fp8(raw: Mapping[str, Any]) -> Packing:
    if (kind := with_default(raw, "fmt", "e4m3")) not in ("e4m3", "float8_e4m3fn"):
        raise ConfigError(f"config.json: FP8 format {shown(kind)} is not read; e4m3 is")
    return Packing("fp8", block=_block(raw, "weight_block_size"))


def _awq(raw: Mapping[str, Any]) -> Packing:
    if (version := str(with_default(raw, "version", "gemm")).lower()) != "gemm":
        raise ConfigError(f"config.json: AWQ version {shown(version)} is not read; gemm is")
    return Packing("awq")


def _gptq(raw: Mapping[str, Any]) -> Packing:
    layout = with_default(raw, "checkpoint_format", "gptq")
    if layout not in ("gptq", "gptq_v2"):
        raise ConfigError(f"config.json: GPTQ's checkpoint_format {shown(layout)} is not read; gptq is")
    return Packing("gptq", has_order=boolean(raw, "desc_act", False), zeros_less_one=layout == "gptq")


def _compressed_tensors(raw: Mapping[str, Any]) -> Packing:
    readable = ("pack-quantized", "float-quantized", "naive-quantized", "int-quantized", "mixed-precision")
    schemes = [scheme for scheme in mapping(raw, "config_groups").values() if isinstance(scheme, Mapping)]
    for layout in [raw.get("format"), *(scheme.get("format") for scheme in schemes)]:
        if layout is not None and layout not in readable:
            raise ConfigError(
                f"config.json: compressed-tensors format {shown(layout)} is not read; {readable[0]} and "
                f"{readable[1]} are"
            )
    if (status := with_default(raw, "quantization_status", "compressed")) != "compressed":
        raise ConfigError(f"config.json: quantization_status is {shown(status)}, but must be compressed")
    weights = [mapping(scheme, "weights") for scheme in schemes]
    blocks = {block for each in weights if (block := _block(each, "block_structure"))}
    if len(blocks) > 1:
        raise ConfigError("config.json: compressed-tensors with blocks of several sizes is not read")
    has_order = any(each.get("actorder") not in (None, False, "weight", "static") for each in weights)
    return Packing("compressed-tensors", block=next(iter(blocks), None), has_order=has_order)


def _block(raw: Mapping[str, Any], key: str) -> tuple[int, int] | None:
    """Rows and columns of a block; None if the field is missing."""
    value = with_default(raw, key, None)
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 2
        or any(type(size) is not int or not 1 <= size <= MAX_BLOCK for size in value)
    ):
        raise ConfigError(f"config.json: {key} must be two numbers of rows and columns, not {shown(value)}")
    return value[0], value[1]
