"""A matrix that another program packed: its parts, its numbers, and what MLX can hold of it as it is."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.checkpoint.packed.stored_rows import BIT_PATTERNS, READABLE
from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.quantization import Quantization

ReadRows = Callable[[StoredTensor, int, int], mx.array]
"""(tensor, first row, number of rows) -> the rows as stored; `read_stored_rows`, or a hub's downloads."""

KEPT_PARTS = 4  # parts of matrices in memory: weights and zeros of the one being read, and of one more


class PartReader:
    """Reads parts of matrices. Those of which columns are needed are read whole, and the latest are kept."""

    def __init__(self, read: ReadRows):
        self.read = read
        self._kept: dict[StoredTensor, np.ndarray[Any, Any]] = {}
        self._lock = threading.Lock()

    def whole(self, part: StoredTensor) -> np.ndarray[Any, Any]:
        """The whole part as a matrix, as the bit patterns that are stored."""
        with self._lock:
            if part not in self._kept:
                rows = self.read(part, 0, num_rows(part))
                _, pattern = BIT_PATTERNS[rows.dtype.size]
                for old in list(self._kept)[: max(0, len(self._kept) - KEPT_PARTS + 1)]:
                    del self._kept[old]
                self._kept[part] = np.array(rows.view(pattern))
            return self._kept[part]

    def numbers(
        self, part: StoredTensor, rows: slice = slice(None), columns: slice = slice(None)
    ) -> mx.array:
        """Rows and columns of a part with the type that is stored."""
        values = np.ascontiguousarray(self.whole(part)[rows, columns])
        return mx.array(values).view(READABLE[part.dtype])


@dataclass(frozen=True)
class PackedMatrix(ABC):
    """A matrix (out, in) whose numbers are in several tensors.

    Attributes:
        name: The name that the matrix has where it is not packed.
        shape: Outputs and inputs, as the model's config says.
        parts: Its tensors, by the last part of their names.
    """

    name: str
    shape: tuple[int, int]
    parts: Mapping[str, StoredTensor]

    @property
    @abstractmethod
    def main(self) -> StoredTensor:
        """The largest part."""

    @property
    @abstractmethod
    def dtype(self) -> mx.Dtype:
        """The 16-bit type that suits its numbers."""

    @abstractmethod
    def rows(self, reader: PartReader, first: int, count: int) -> mx.array:
        """Rows `first` to `first + count` in fp32. Raises CheckpointError."""

    @property
    def quantization(self) -> Quantization | None:
        """What MLX can hold it as without loss; None if it cannot."""
        return None

    def mlx_rows(
        self, reader: PartReader, first: int, count: int, quantization: Quantization
    ) -> tuple[mx.array, mx.array, mx.array]:
        """The same rows as MLX's packed weights, scales and biases (fp32). Raises CheckpointError."""
        raise NotImplementedError  # only where `quantization` is not None

    @property
    def num_bytes(self) -> int:
        return sum(part.num_bytes for part in self.parts.values())

    def refuse(self, problem: str) -> CheckpointError:
        """An error about this matrix."""
        return CheckpointError(f"{self.main.file}: {self.name} {problem}")


def num_rows(part: StoredTensor) -> int:
    """All axes but the last count as rows."""
    return int(np.prod(part.shape[:-1], dtype=np.int64))
