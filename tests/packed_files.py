"""Checkpoints as AutoAWQ, GPTQ, and FP8 store them, written bit by bit after the formats' descriptions.

Nothing of the package is used: each writer returns the weights that its file stands for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from tiny_checkpoints import published_tensors

Arrays = dict[str, np.ndarray]
Packer = Callable[[np.ndarray, np.random.Generator], tuple[Arrays, np.ndarray]]
"""Weights (out, in) -> parts by their last names, and the weights that the parts stand for."""

KINDS = {"float16": "F16", "float32": "F32", "int32": "I32", "int64": "I64", "int8": "I8"}
KINDS |= {"uint8": "F8_E4M3", "uint16": "BF16"}


def write_packed(
    folder: Path, raw: Mapping[str, Any], quantization: Mapping[str, Any], pack: Packer, shards: int = 1
) -> dict[str, mx.array]:
    """Write a random model of `raw` whose linear layers are packed; return the weights it stands for."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**raw, "torch_dtype": "float32", "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(1)
    stored: Arrays = {}
    meant: dict[str, mx.array] = {}
    for name, value in published_tensors(dict(raw)).items():
        array = np.array(value)
        if name.endswith("_proj.weight"):
            parts, array = pack(array, random)
            stored.update({f"{name.removesuffix('.weight')}.{leaf}": part for leaf, part in parts.items()})
        else:
            stored[name] = array
        meant[name] = mx.array(array)
    write_shards(folder, stored, shards)
    return meant


def write_shards(folder: Path, stored: Arrays, shards: int) -> None:
    """Write tensors as published checkpoints are; the parts of a matrix may come into several files."""
    names = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    names = ["model.safetensors"] if shards == 1 else names
    places = {name: names[i % shards] for i, name in enumerate(sorted(stored))}
    for file in names:
        write_file(folder / file, {name: stored[name] for name in stored if places[name] == file})
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def write_file(path: Path, arrays: Arrays) -> None:
    """A safetensors file. numpy has no FP8 and bfloat16: their bytes are uint8 and uint16 here."""
    header: dict[str, Any] = {}
    stop = 0
    for name, array in arrays.items():
        start, stop = stop, stop + array.nbytes
        kind = KINDS[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, stop]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in arrays.values()))


def read_file(path: Path) -> Arrays:
    """The same, read back."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    names = {kind: name for name, kind in KINDS.items()}
    arrays = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        arrays[name] = np.frombuffer(data[start:stop], names[entry["dtype"]]).reshape(entry["shape"])
    return arrays


def words(values: np.ndarray, bits: int) -> np.ndarray:
    """Numbers along the first axis -> words of 32 bits, the first number lowest."""
    per_word = 32 // bits
    result = np.zeros((len(values) // per_word, *values.shape[1:]), np.uint64)
    for place in range(per_word):
        result |= values[place::per_word].astype(np.uint64) << np.uint64(place * bits)
    return result.astype(np.uint32).view(np.int32)


def rounded(
    weights: np.ndarray, bits: int, groups: np.ndarray, symmetric: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights (out, in) and the group of each input -> numbers (out, in), scales and zeros (out, groups)."""
    outputs, count, most = len(weights), groups.max() + 1, 2**bits - 1
    scales, zeros = np.zeros((outputs, count), np.float16), np.zeros((outputs, count), np.int64)
    for group in range(count):
        of_group = weights[:, groups == group]
        low, high = np.minimum(of_group.min(1), 0), np.maximum(of_group.max(1), 0)
        if symmetric:
            high = np.maximum(high, -low)
            low = -high
        scales[:, group] = np.maximum((high - low) / most, 1e-3)
        zeros[:, group] = (
            2 ** (bits - 1)
            if symmetric
            else np.clip(np.round(-low / scales[:, group].astype(np.float32)), 0, most)
        )
    of_input = scales.astype(np.float32)[:, groups]
    numbers = np.clip(np.round(weights / of_input) + zeros[:, groups], 0, most).astype(np.int64)
    return numbers, scales, zeros, (numbers - zeros[:, groups]) * of_input


def gptq(
    bits: int = 4, group_size: int = 64, symmetric: bool = False, order: bool = False, version: int = 1
) -> Packer:
    """AutoGPTQ's layout; version 1 stores zeros less one, as one number of 32 bits."""

    def pack(weights: np.ndarray, random: np.random.Generator) -> tuple[Arrays, np.ndarray]:
        inputs = weights.shape[1]
        size = inputs if group_size == -1 else group_size
        groups = np.arange(inputs) // size
        if order:
            groups = random.permutation(groups)
        numbers, scales, zeros, meant = rounded(weights, bits, groups, symmetric)
        packed_zeros = words(zeros, bits).T  # (groups, out * bits / 32)
        if version == 1:
            ones = sum(1 << shift for shift in range(0, 32, bits))
            packed_zeros = (packed_zeros.view(np.uint32) - np.uint32(ones)).view(np.int32)
        parts = {
            "qweight": words(numbers.T, bits),
            "qzeros": packed_zeros,
            "scales": scales.T,
            "g_idx": groups.astype(np.int32),
        }
        return parts, meant

    return pack


def awq(bits: int = 4, group_size: int = 64) -> Packer:
    """AutoAWQ's GEMM layout: words hold outputs, interleaved."""
    order = {4: [0, 2, 4, 6, 1, 3, 5, 7], 8: [0, 2, 1, 3]}[bits]

    def interleaved(values: np.ndarray) -> np.ndarray:
        """(n, out) -> (n, out * bits / 32)."""
        rows, outputs = values.shape
        per_word = 32 // bits
        mixed = values.reshape(rows, outputs // per_word, per_word)[..., order].reshape(rows, outputs)
        return words(mixed.T, bits).T

    def pack(weights: np.ndarray, random: np.random.Generator) -> tuple[Arrays, np.ndarray]:
        groups = np.arange(weights.shape[1]) // group_size
        numbers, scales, zeros, meant = rounded(weights, bits, groups, symmetric=False)
        return {"qweight": interleaved(numbers.T), "qzeros": interleaved(zeros.T), "scales": scales.T}, meant

    return pack


def fp8(
    block: tuple[int, int] | None = (128, 128), scale_dtype: str = "bfloat16", leaf: str = "weight_scale_inv"
) -> Packer:
    """Qwen's layout: float8_e4m3fn and a scale for each block; None is one scale for the matrix."""

    def pack(weights: np.ndarray, random: np.random.Generator) -> tuple[Arrays, np.ndarray]:
        height, width = block or weights.shape
        width = min(width, weights.shape[1])
        grid = -(-weights.shape[0] // height), -(-weights.shape[1] // width)
        scales = np.zeros(grid, np.float32)
        codes, meant = np.zeros(weights.shape, np.uint8), np.zeros(weights.shape, np.float32)
        for row in range(grid[0]):
            for column in range(grid[1]):
                at = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
                scale = np.abs(weights[at]).max() / 448 * random.uniform(1, 1.5)
                scales[row, column] = scale if scale_dtype == "float32" else bfloat16(scale)
                codes[at] = fp8_codes(weights[at] / scales[row, column])
                meant[at] = FP8_VALUES[codes[at]] * scales[row, column]
        stored = scales if scale_dtype == "float32" else (scales.view(np.uint32) >> 16).astype(np.uint16)
        return {"weight": codes, leaf: stored.reshape(() if block is None else grid)}, meant

    return pack


def packed_integers(
    bits: int = 4, group_size: int = 64, symmetric: bool = True, order: bool = False
) -> Packer:
    """compressed-tensors' `pack-quantized`: words hold inputs; zeros are packed along the outputs."""

    def pack(weights: np.ndarray, random: np.random.Generator) -> tuple[Arrays, np.ndarray]:
        inputs = weights.shape[1]
        groups = np.arange(inputs) // (inputs if group_size == -1 else group_size)
        if order:
            groups = random.permutation(groups)
        numbers, scales, zeros, meant = rounded(weights, bits, groups, symmetric)
        parts = {"weight_packed": words(numbers.T, bits).T, "weight_scale": scales}
        parts["weight_shape"] = np.array(weights.shape, np.int64)
        if not symmetric:
            parts["weight_zero_point"] = words(zeros, bits)
        if order:
            parts["weight_g_idx"] = groups.astype(np.int32)
        return parts, meant

    return pack


def bfloat16(value: float) -> Any:
    return (np.array(value, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)[()]


def _fp8_value(code: int) -> float:
    """OCP's float8 e4m3: sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinity."""
    sign, exponent, mantissa = -1 if code & 128 else 1, code >> 3 & 15, code & 7
    if code & 127 == 127:
        return float("nan")
    return sign * (mantissa / 8 * 2**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


FP8_VALUES = np.array([_fp8_value(code) for code in range(256)], np.float32)


def fp8_codes(values: np.ndarray) -> np.ndarray:
    """The nearest codes."""
    positive = FP8_VALUES[:127]
    nearest = np.abs(np.abs(values)[..., None] - positive).argmin(-1).astype(np.uint8)
    codes: np.ndarray = nearest | np.where(values < 0, 128, 0).astype(np.uint8)
    return codes
