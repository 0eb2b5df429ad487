"""Writes a safetensors file of known sizes: first the header, then the bytes of its tensors as they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from mlx_qwen3.backend.safetensors_io import TensorSpec, encode_header
from mlx_qwen3.conversion.planning import OutputTensor
from mlx_qwen3.errors import ConversionError


class ShardWriter:
    """Writes one file. Tensors are written in turns, each from front to back. Raises OSError."""

    def __init__(self, path: Path, tensors: Sequence[OutputTensor]):
        # The widest dtypes first, so that each tensor starts at a multiple of its dtype's size.
        tensors = sorted(tensors, key=lambda tensor: -tensor.dtype.size)
        specs = (TensorSpec(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors)
        header, self._next = encode_header(specs, {"format": "mlx"})
        self._file = path.open("wb")
        self._file.write(header)
        self._end = {tensor.name: self._next[tensor.name] + tensor.num_bytes for tensor in tensors}

    def write(self, name: str, data: memoryview) -> None:
        """Append `data` to tensor `name`."""
        self._file.seek(self._next[name])
        self._file.write(data)
        self._next[name] += data.nbytes

    def close(self) -> None:
        """Finish the file. Raises ConversionError if a tensor has fewer or more bytes than planned."""
        self._file.close()
        for name, end in self._end.items():
            if self._next[name] != end:
                raise ConversionError(f"{name} came out {self._next[name] - end:+} bytes of its planned size")

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._file.close()
