"""Reads GGUF, llama.cpp's format: metadata, and tensors dequantized a few rows at a time.

The `gguf` package (extra `gguf`) knows every quantization; it is imported when needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.checkpoint.safetensors_files import few
from mlx_qwen3.conversion.source.gguf_header import TensorInfo, read_header
from mlx_qwen3.conversion.source.tensors import Source
from mlx_qwen3.errors import CheckpointError, ConversionError, ModelNotFoundError

SUFFIX = ".gguf"
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class GgufFile:
    """What the header of a GGUF file, or of all its parts, says."""

    path: Path
    fields: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]


class GgufTensor(Source):
    """A tensor of a GGUF file. kind: the quantization's name, as in `Q4_K`."""

    def __init__(self, name: str, file: Path, shape: tuple[int, ...], kind: str, offset: int):
        self.name, self.file, self.shape, self.kind, self.offset = name, file, shape, kind, offset
        block, num_bytes = _block(kind)
        if shape[-1] % block:
            raise CheckpointError(
                f"{file}: {name} has rows of {shape[-1]} values, {kind} stores {block} at a time; "
                "download it again"
            )
        self._row_bytes = shape[-1] // block * num_bytes
        self.num_bytes = self.num_rows * self._row_bytes

    @property
    def dtype(self) -> mx.Dtype:
        return {"F16": mx.float16, "BF16": mx.bfloat16}.get(self.kind, mx.float32)

    def read(self, first: int, count: int) -> mx.array:
        size, start = count * self._row_bytes, self.offset + first * self._row_bytes
        try:
            data = np.fromfile(self.file, np.uint8, size, offset=start).reshape(-1, self._row_bytes)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.file} could not be read: {error}") from error
        if len(data) < count:
            raise CheckpointError(f"{self.file} ends within {self.name}; download it again")
        if self.kind in ("F16", "BF16"):
            return mx.array(data.view(np.uint16)).view(self.dtype)
        return mx.array(_dequantize(data, self.kind))

    @property
    def described(self) -> list[Any]:
        return [self.name, self.file.name, self.offset, self.kind]


def read_gguf(path: Path) -> GgufFile:
    """The header of a GGUF file; of one in parts, that of all of them, whichever is named.

    Raises ModelNotFoundError, CheckpointError for a file that is damaged or cut off, and
    ConversionError where the extra is missing.
    """
    fields: dict[str, Any] = {}
    tensors: list[GgufTensor] = []
    for file in _parts(path):
        part_fields, part_tensors = _read_part(file)
        fields = part_fields | fields  # the first part's count
        tensors += part_tensors
    return GgufFile(path, fields, tuple(tensors))


def stem(path: Path) -> str:
    """The model's name: that of the file without suffix and number of the part."""
    match = PART.fullmatch(path.name)
    return match[1] if match else path.name.removesuffix(SUFFIX)


def _parts(path: Path) -> list[Path]:
    match = PART.fullmatch(path.name)
    if match is None:
        files = [path]
    else:
        count = int(match[3])
        files = [path.with_name(f"{match[1]}-{i + 1:05d}-of-{count:05d}.gguf") for i in range(count)]
    if missing := [file.name for file in files if not file.is_file()]:
        if len(files) == 1:
            raise ModelNotFoundError(f"no file {path}")
        raise CheckpointError(f"{path.parent} lacks {few(missing)} of {len(files)} parts; download them too")
    return files


def _read_part(file: Path) -> tuple[dict[str, Any], list[GgufTensor]]:
    try:
        fields, infos = read_header(file)
    except OSError as error:
        raise CheckpointError(f"{file} could not be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged or not GGUF ({error}); download it again") from error
    tensors = [GgufTensor(one.name, file, one.shape, _kind(one), one.offset) for one in infos]
    _check_size(file, tensors)
    return fields, tensors


def _kind(info: TensorInfo) -> str:
    try:
        return str(_package().GGMLQuantizationType(info.kind).name)
    except ValueError:
        raise ConversionError(
            f"{info.name} is stored as ggml type {info.kind}, which is newer than the `gguf` package: "
            "pip install --upgrade gguf"
        ) from None


def _check_size(file: Path, tensors: list[GgufTensor]) -> None:
    end = max((tensor.offset + tensor.num_bytes for tensor in tensors), default=0)
    if file.stat().st_size < end:
        raise CheckpointError(f"{file} is cut off: {end:,} bytes are needed; download it again")


def _package() -> Any:
    try:
        import gguf
    except ImportError:
        raise ConversionError("GGUF files need the `gguf` package: pip install 'mlx-qwen3[gguf]'") from None
    return gguf


def _dequantize(data: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    gguf = _package()
    result: np.ndarray[Any, Any] = gguf.dequantize(data, gguf.GGMLQuantizationType[kind])
    return result


@lru_cache
def _block(kind: str) -> tuple[int, int]:
    """Values in a block of this quantization, and its bytes. Raises ConversionError if none can read it."""
    gguf = _package()
    block, num_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    try:
        _dequantize(np.zeros((1, num_bytes), np.uint8), kind)
    except NotImplementedError:
        raise ConversionError(f"no tensors of type {kind} can be read; get another file") from None
    return block, num_bytes
