"""What kernels and those who call them agree on: formats of matrices, sizes, and words in memory.

Imports nothing of LLVM, which processes do without once their kernels are compiled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

LANES = 8
FLOAT, VECTOR = 4, 4 * LANES  # bytes
WORD = 8

# An operation of a program: the address of its kernel, which of its work is taken, which is done, operands.
SLOTS = 24
KERNEL, TAKEN, DONE, OPERANDS = 0, 1, 2, 3

# Words of the state that threads share. Each is alone in its cache line.
LINE = 16
OPEN, OPERATIONS, RUNS, SLEEPERS, SEMAPHORE, PATIENCE = (LINE * number for number in range(6))
"""OPEN: the run's number and the first open operation, with bit 63 set; 0 while no program runs."""
STATE_WORDS = LINE * 7

SEQUENCE_WORDS = 8
"""What attention is told of a sequence: the addresses of its cached keys and values, bytes from one head's
rows to the next's, how many rows there are, its first new row, how many new rows it has, which cached row
none of them sees (-1: they see all), and whether the new rows are to be written behind the cached ones."""

# Input rows that are multiplied at once: each stored value is unpacked once for so many.
MOST_ROWS = 4
# Values of a row that share a scale in the kernels' inner loop, at most.
BLOCK = 64
# Of a product with many rows: input rows in a panel, and rows of the matrix that are multiplied with it.
PANEL, GROUP = 16, 6
# Rows of the matrix that a thread unpacks at a time: they and a panel stay in the cache of a core.
TILE = 8 * GROUP


class Format(NamedTuple):
    """How a matrix is stored.

    Attributes:
        mode: float32, float16 or bfloat16 for a plain matrix; affine, mxfp4, mxfp8 or nvfp4.
        bits: Of one value.
        group_size: Values that share a scale; 0 for a plain matrix.
        scales: The dtype of affine scales and biases: float32, float16 or bfloat16.
    """

    mode: str
    bits: int
    group_size: int = 0
    scales: str = ""

    @property
    def is_plain(self) -> bool:
        return not self.group_size

    @property
    def name(self) -> str:
        return "_".join(map(str, filter(None, self)))

    @property
    def scale_bytes(self) -> int:
        if self.mode != "affine":
            return 1
        return 4 if self.scales == "float32" else 2

    @property
    def block(self) -> int:
        """Values of a row that the kernels' inner loop takes at a time."""
        return BLOCK if self.is_plain else min(BLOCK, self.group_size)


PLAIN = Format("float32", 32)
"""Numbers as they are."""


class Unit(NamedTuple):
    """Kernels that are compiled together: `kind`, for matrices of a format if it depends on that."""

    kind: str
    fmt: Format | None = None

    @property
    def name(self) -> str:
        return self.kind if self.fmt is None else f"{self.kind}_{self.fmt.name}"


def product_name(fmt: Format) -> str:
    return f"product_{fmt.name}"


def experts_name(fmt: Format) -> str:
    return f"experts_{fmt.name}"


def unpack_name(fmt: Format) -> str:
    return f"unpack_{fmt.name}"


def matmul_name(fmt: Format) -> str:
    return f"matmul_{fmt.name}"


def arranged_bytes(fmt: Format, width: Any) -> Any:
    """A row of input as the kernels want it, and behind it, for each group, its sum by lanes."""
    return width * FLOAT + width // fmt.block * VECTOR


def scratch_bytes(fmt: Format, rows: int, width: int) -> int:
    """What a thread needs for its own copy of `rows` input rows of `width` numbers."""
    return 0 if fmt.is_plain else rows * int(arranged_bytes(fmt, width))


def panels_bytes(rows: int, width: int) -> int:
    """What an arranged input takes."""
    return -(-rows // PANEL) * PANEL * width * FLOAT


def tile_bytes(width: int) -> int:
    """What a thread needs for the rows that it unpacks."""
    return TILE * width * FLOAT
