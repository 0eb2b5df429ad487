"""Reads the header of a GGUF file: metadata, and the place of each tensor (ggml's docs/gguf.md, v2 and v3).

The reader of the `gguf` package takes eight seconds and half a GB for the 300,000 strings of Qwen's
tokenizer. Here every length is checked against the size of the file before it is used.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
# Codes of the struct module for the scalar value types.
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
# Above every published file. What is read takes up to a hundred times the memory that it has in the file.
MAX_HEADER_BYTES = 2**27
MAX_FIELDS = 2**14
MAX_TENSORS = 2**17
MAX_ARRAY_VALUES = 2**22  # in all arrays together; Qwen3's tokenizer has 450,000


@dataclass(frozen=True)
class TensorInfo:
    """Where and how a tensor is stored."""

    name: str
    shape: tuple[int, ...]  # rows first: the reverse of the file's order
    ggml_type: int  # ggml's number of its quantization
    offset: int  # bytes from the start of the file


def read_header(file: Path) -> tuple[dict[str, Any], list[TensorInfo]]:
    """Metadata by key, and all tensors. Raises OSError, and ValueError, which says what is wrong."""
    with file.open("rb") as stream:
        cursor = _Cursor(stream)
        if cursor.take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        if (version := cursor.number("I")) not in VERSIONS:
            raise ValueError(f"version {version} is not known")
        num_tensors, num_fields = cursor.number("Q"), cursor.number("Q")
        _check_count("fields", num_fields, MAX_FIELDS)
        _check_count("tensors", num_tensors, MAX_TENSORS)
        fields = dict(cursor.field() for _ in range(cursor.plausible(num_fields)))
        tensors = [cursor.tensor() for _ in range(cursor.plausible(num_tensors))]
        alignment = fields.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"general.alignment is {alignment}")
        start = -(-stream.tell() // alignment) * alignment
    return fields, [replace(tensor, offset=start + tensor.offset) for tensor in tensors]


def _check_count(name: str, count: int, most: int) -> None:
    if count > most:
        raise ValueError(f"it says that it has {count:,} {name}; no Qwen3 file has more than {most:,}")


class _Cursor:
    """Reads the values of the header one after another."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._left = min(os.fstat(stream.fileno()).st_size, MAX_HEADER_BYTES)
        self._array_values = 0

    def take(self, count: int) -> bytes:
        self._left -= self.plausible(count)
        data = self._stream.read(count)
        if len(data) < count:
            raise ValueError("it ends within its header")
        return data

    def plausible(self, count: int) -> int:
        """`count`, if that many bytes are left; what is counted takes at least a byte each."""
        if count > self._left:
            raise ValueError("it ends within its header")
        return count

    def number(self, code: str) -> int:
        value: int = struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]
        return value

    def string(self) -> str:
        return self.take(self.number("Q")).decode()

    def field(self) -> tuple[str, Any]:
        return self.string(), self.value(self.number("I"))

    def value(self, value_type: int) -> Any:
        if value_type == STRING:
            return self.string()
        if value_type == ARRAY:
            return self.array(self.number("I"), self.number("Q"))
        if value_type not in SCALARS:
            raise ValueError(f"value type {value_type} is not known")
        return self.number(SCALARS[value_type])

    def array(self, value_type: int, count: int) -> list[Any]:
        self._array_values += count
        _check_count("values in arrays", self._array_values, MAX_ARRAY_VALUES)
        if code := SCALARS.get(value_type):
            num_bytes = self.plausible(count) * struct.calcsize(code)
            return list(struct.unpack(f"<{count}{code}", self.take(num_bytes)))
        if value_type != STRING:  # Qwen's files have no arrays of arrays
            raise ValueError(f"arrays of type {value_type} are not known")
        return [self.string() for _ in range(self.plausible(count))]

    def tensor(self) -> TensorInfo:
        """A tensor whose offset counts from the end of the header."""
        name = self.string()
        dimensions = self.number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"{name} has {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        return TensorInfo(name, shape, self.number("I"), self.number("Q"))
