"""The header of a safetensors file, written and read.

A file is the header's length (8 bytes, little endian), the header in JSON, then the tensors' bytes
(https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
from safetensors import SafetensorError, safe_open

# As safetensors spells them. No Qwen3 checkpoint and no KV cache needs another.
DTYPES = {
    "BF16": mx.bfloat16,
    "F16": mx.float16,
    "F32": mx.float32,
    "I32": mx.int32,
    "U32": mx.uint32,
    "U8": mx.uint8,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
METADATA = "__metadata__"
LENGTH_BYTES = 8
ALIGNMENT = 8  # of the tensors' bytes: the header is padded with spaces


class TensorSpec(NamedTuple):
    """A tensor to be written."""

    name: str
    dtype: mx.Dtype
    shape: Sequence[int]


class TensorEntry(NamedTuple):
    """A tensor in a file, at the bytes from `start` up to `stop`. `dtype` is spelled as in DTYPES."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """What a file says of itself: its own metadata, and its tensors by name."""

    metadata: dict[str, str]
    tensors: dict[str, TensorEntry]


def encode_header(tensors: Iterable[TensorSpec], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a file that holds `tensors` in this order, and where in the file each one starts."""
    entries: dict[str, object] = {METADATA: dict(metadata)}
    starts: dict[str, int] = {}
    stop = 0
    for name, dtype, shape in tensors:
        start, stop = stop, stop + math.prod(shape) * dtype.size
        entries[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [start, stop]}
        starts[name] = start
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    header = len(text).to_bytes(LENGTH_BYTES, "little") + text
    return header, {name: len(header) + start for name, start in starts.items()}


def read_header(path: str | Path) -> Header:
    """The header of the file at `path`.

    Raises FileNotFoundError or another OSError for a file that cannot be read, and ValueError for one
    that is cut off or no safetensors file.
    """
    try:
        # safe_open checks that the header is sound and that the file is as long as it says.
        with safe_open(path, "np"), Path(path).open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            entries = json.loads(file.read(length))
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    metadata = entries.pop(METADATA, None) or {}
    tensors = {}
    for name, entry in entries.items():
        start, stop = (LENGTH_BYTES + length + offset for offset in entry["data_offsets"])
        tensors[name] = TensorEntry(entry["dtype"], tuple(entry["shape"]), start, stop)
    return Header(metadata, tensors)
