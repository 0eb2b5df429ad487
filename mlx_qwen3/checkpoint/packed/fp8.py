"""FP8: numbers in float8_e4m3fn, multiplied by a scale for each block, each row, or the whole matrix.

Qwen's own (`weight_scale_inv`, blocks of 128 by 128, which despite its name is the scale) and those of
compressed-tensors (`weight_scale`). https://github.com/deepseek-ai/DeepSeek-V3 has the first description.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from mlx_qwen3.checkpoint.packed.matrix import PackedMatrix, PartReader
from mlx_qwen3.checkpoint.packed.stored_rows import READABLE
from mlx_qwen3.checkpoint.tensor_names import StoredTensor

SCALES = ("weight_scale_inv", "weight_scale")
SCALE_TYPES = ("BF16", "F16", "F32")
STORED = ("F8_E4M3", "I8")  # int8 is scaled in the same way


@dataclass(frozen=True)
class ScaledMatrix(PackedMatrix):
    """One byte a number, and scales (rows of blocks, columns of blocks).

    block: Rows and columns that share a scale.
    """

    block: tuple[int, int]

    @classmethod
    def of(
        cls, name: str, shape: tuple[int, int], parts: dict[str, StoredTensor], block: tuple[int, int] | None
    ) -> ScaledMatrix:
        """The matrix with these parts. block: as config.json says. Raises CheckpointError."""
        matrix = cls(name, shape, parts, block or shape)
        scale = matrix.scale
        if parts["weight"].shape != shape:
            raise matrix.refuse(
                f"has shape {list(parts['weight'].shape)}, config.json asks for {list(shape)}"
            )
        if scale.dtype not in SCALE_TYPES:
            raise matrix.refuse(f"has scales of type {scale.dtype}, not {' or '.join(SCALE_TYPES)}")
        for candidate in (block, shape, (1, shape[1])):  # blocks, one scale, or one for each row
            if candidate is not None and _holds(scale, _grid(shape, candidate)):
                return cls(name, shape, parts, candidate)
        raise matrix.refuse(
            f"has scales of shape {list(scale.shape)}, which divide its {list(shape)} into no blocks that "
            "config.json says; config.json and weights do not belong together"
        )

    @property
    def main(self) -> StoredTensor:
        return self.parts["weight"]

    @property
    def scale(self) -> StoredTensor:
        return next(self.parts[leaf] for leaf in SCALES if leaf in self.parts)

    @property
    def dtype(self) -> mx.Dtype:
        return mx.float16 if self.scale.dtype == "F16" else mx.bfloat16

    def rows(self, reader: PartReader, first: int, count: int) -> mx.array:
        stored = reader.read(self.main, first, count)
        values = stored.astype(mx.float32) if self.main.dtype == "I8" else mx.from_fp8(stored, mx.float32)
        height, width = self.block
        scales = mx.array(reader.whole(self.scale)).view(READABLE[self.scale.dtype])
        scales = scales.reshape(_grid(self.shape, self.block))[mx.arange(first, first + count) // height]
        scales = mx.repeat(scales.astype(mx.float32), min(width, self.shape[1]), axis=1)
        return values * scales[:, : self.shape[1]]


def _grid(shape: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """How many blocks there are in a matrix; those at its ends may be smaller."""
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def _holds(scale: StoredTensor, grid: tuple[int, int]) -> bool:
    """Whether the scales are one for each block, also where axes of length 1 are left out."""
    return [size for size in scale.shape if size != 1] == [size for size in grid if size != 1]
