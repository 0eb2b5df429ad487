"""Reads GGUF files, llama.cpp's format: metadata, and tensors dequantized a few rows at a time.

The `gguf` package (extra `gguf`) dequantizes every format; it is imported when it is needed.
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
from mlx_qwen3.conversion.source.tensors import SourceTensor
from mlx_qwen3.errors import CheckpointError, ConversionError, ModelNotFoundError, install_command

SUFFIX = ".gguf"
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class GgufFile:
    """The header of a GGUF file, or of all parts of one."""

    path: Path
    fields: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]


class GgufTensor(SourceTensor):
    """A tensor of a GGUF file. ggml_type: the name of its quantization, such as `Q4_K`."""

    def __init__(self, name: str, file: Path, shape: tuple[int, ...], ggml_type: str, offset: int):
        self.name, self.file, self.shape = name, file, shape
        self.ggml_type, self.offset = ggml_type, offset
        block, num_bytes = _block(ggml_type)
        if shape[-1] % block:
            raise CheckpointError(
                f"{file}: {name} has rows of {shape[-1]} values, {ggml_type} stores {block} at a time; "
                "download it again"
            )
        self._row_bytes = shape[-1] // block * num_bytes
        self.num_bytes = self.num_rows * self._row_bytes

    @property
    def dtype(self) -> mx.Dtype:
        return {"F16": mx.float16, "BF16": mx.bfloat16}.get(self.ggml_type, mx.float32)

    def read(self, first: int, count: int) -> mx.array:
        size, start = count * self._row_bytes, self.offset + first * self._row_bytes
        try:
            data = np.fromfile(self.file, np.uint8, size, offset=start).reshape(-1, self._row_bytes)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.file} could not be read: {error}") from error
        if len(data) < count:
            raise CheckpointError(f"{self.file} ends within {self.name}; download it again")
        if self.ggml_type in ("F16", "BF16"):
            return mx.array(data.view(np.uint16)).view(self.dtype)
        return mx.array(_dequantize(data, self.ggml_type))

    @property
    def identity(self) -> list[Any]:
        return [self.name, self.file.name, self.offset, self.ggml_type]


def read_gguf(path: Path) -> GgufFile:
    """The header of a GGUF file. Of a file in parts, `path` is any part, and all parts are read.

    Raises ModelNotFoundError, CheckpointError for a file that is damaged or cut off, and
    ConversionError if the `gguf` package is missing or too old.
    """
    fields: dict[str, Any] = {}
    tensors: list[GgufTensor] = []
    for file in _parts(path):
        part_fields, part_tensors = _read_part(file)
        fields = part_fields | fields  # the first part has the metadata
        tensors += part_tensors
    return GgufFile(path, fields, tuple(tensors))


def stem(path: Path) -> str:
    """The model's name: the file name without its suffix and the number of the part."""
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
    tensors = [GgufTensor(info.name, file, info.shape, _type_name(info), info.offset) for info in infos]
    _check_size(file, tensors)
    return fields, tensors


def _type_name(info: TensorInfo) -> str:
    try:
        return str(_package().GGMLQuantizationType(info.ggml_type).name)
    except ValueError:
        raise ConversionError(
            f"{info.name} is stored as ggml type {info.ggml_type}, which is newer than the `gguf` package: "
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
        raise ConversionError(f"GGUF files need the `gguf` package: {install_command('gguf')}") from None
    return gguf


def _dequantize(data: np.ndarray[Any, Any], ggml_type: str) -> np.ndarray[Any, Any]:
    gguf = _package()
    values: np.ndarray[Any, Any] = gguf.dequantize(data, gguf.GGMLQuantizationType[ggml_type])
    return values


@lru_cache
def _block(ggml_type: str) -> tuple[int, int]:
    """Values in a block of this type, and its bytes. Raises ConversionError if it cannot be dequantized."""
    gguf = _package()
    block, num_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[ggml_type]]
    try:
        _dequantize(np.zeros((1, num_bytes), np.uint8), ggml_type)
    except NotImplementedError:
        raise ConversionError(f"no tensors of type {ggml_type} can be read; get another file") from None
    return block, num_bytes
