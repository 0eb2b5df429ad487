"""The header of a GGUF file: metadata, and where each tensor is (ggml's docs/gguf.md, versions 2 and 3).

Read here rather than by the `gguf` package, whose reader takes eight seconds and half a GB for the 300,000
strings of Qwen's tokenizer. Nothing is taken on trust: no length goes beyond the file.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
# Value types by number, as struct spells them.
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4


@dataclass(frozen=True)
class TensorInfo:
    """A tensor. shape: rows first, as everywhere else here. kind: ggml's number of its type. offset: its
    place in the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def read_header(file: Path) -> tuple[dict[str, Any], list[TensorInfo]]:
    """Metadata by key, and all tensors. Raises ValueError saying what is wrong, OSError."""
    with file.open("rb") as stream:
        cursor = _Cursor(stream)
        if cursor.take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        if (version := cursor.number("I")) not in VERSIONS:
            raise ValueError(f"version {version} is not known")
        num_tensors, num_fields = cursor.number("Q"), cursor.number("Q")
        fields = dict(cursor.field() for _ in range(cursor.plausible(num_fields)))
        tensors = [cursor.tensor() for _ in range(cursor.plausible(num_tensors))]
        alignment = fields.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"general.alignment is {alignment}")
        start = -(-stream.tell() // alignment) * alignment
    return fields, [TensorInfo(one.name, one.shape, one.kind, start + one.offset) for one in tensors]


class _Cursor:
    """Reads one value after the other."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._size = os.fstat(stream.fileno()).st_size
        self._left = self._size

    def take(self, count: int) -> bytes:
        self._left -= self.plausible(count)
        data = self._stream.read(count)
        if len(data) < count:
            raise ValueError("it ends within its header")
        return data

    def plausible(self, count: int) -> int:
        """`count`, if as many bytes are left."""
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

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array(self.number("I"), self.number("Q"))
        if kind not in SCALARS:
            raise ValueError(f"value type {kind} is not known")
        return self.number(SCALARS[kind])

    def array(self, kind: int, count: int) -> list[Any]:
        if kind in SCALARS:
            size = struct.calcsize(SCALARS[kind])
            return list(struct.unpack(f"<{count}{SCALARS[kind]}", self.take(self.plausible(count) * size)))
        if kind != STRING:  # nothing of Qwen's is an array of arrays
            raise ValueError(f"arrays of type {kind} are not known")
        return [self.string() for _ in range(self.plausible(count))]

    def tensor(self) -> TensorInfo:
        name = self.string()
        dimensions = self.number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"{name} has {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        return TensorInfo(name, shape, self.number("I"), self.number("Q"))
