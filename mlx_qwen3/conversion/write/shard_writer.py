"""Writes a safetensors file whose sizes are known ahead: header first, then bytes as they come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from mlx_qwen3.backend.safetensors_io import DTYPE_NAMES
from mlx_qwen3.conversion.planning import OutputTensor
from mlx_qwen3.errors import ConversionError

ALIGNMENT = 8  # of the header's length, as the format asks


class ShardWriter:
    """One file. Tensors may be written in turns, each from front to back. Raises OSError."""

    def __init__(self, path: Path, tensors: Sequence[OutputTensor]):
        # The widest numbers first: every tensor then starts at a multiple of its number's size.
        tensors = sorted(tensors, key=lambda tensor: -tensor.dtype.size)
        header, starts = _header(tensors)
        self._file = path.open("wb")
        self._file.write(header)
        self._next = {name: len(header) + start for name, start in starts.items()}
        self._end = {tensor.name: self._next[tensor.name] + tensor.num_bytes for tensor in tensors}

    def write(self, name: str, data: memoryview) -> None:
        """Append `data` to tensor `name`."""
        self._file.seek(self._next[name])
        self._file.write(data)
        self._next[name] += data.nbytes

    def close(self) -> None:
        """Finish the file. Raises ConversionError when a tensor did not get all its bytes."""
        self._file.close()
        for name, end in self._end.items():
            if self._next[name] != end:
                raise ConversionError(f"{name} came out {self._next[name] - end:+} bytes of its planned size")

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


def _header(tensors: Sequence[OutputTensor]) -> tuple[bytes, dict[str, int]]:
    """The file's first bytes, and where each tensor starts behind them."""
    entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    starts: dict[str, int] = {}
    position = 0
    for tensor in tensors:
        starts[tensor.name] = position
        position += tensor.num_bytes
        entries[tensor.name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": [starts[tensor.name], position],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, starts
