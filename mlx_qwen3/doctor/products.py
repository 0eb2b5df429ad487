"""Products with quantized matrices, in every format and around every threshold, beside numpy's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.doctor.compare import as_numpy, distance
from mlx_qwen3.doctor.models import unpacked

WIDTH, OUT = 256, 192
ROWS = (1, 4, 16, 64)
FORMATS: list[tuple[str, int, int]] = [
    *(("affine", bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)),
    *(("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)),
]
QUICK_FORMATS = [("affine", 4, 64), ("affine", 8, 64)]
ALLOWED_FP32, ALLOWED_HALF = 1e-3, 0.03


def check_products(quick: bool = False) -> Iterator[str]:
    """Rows times quantized matrices, and the same gathered by expert."""
    bound = ALLOWED_FP32 if is_cpu() else ALLOWED_HALF
    for mode, bits, group_size in QUICK_FORMATS if quick else FORMATS:
        options: dict[str, Any] = {"group_size": group_size, "bits": bits, "mode": mode}
        matrix = mx.random.normal((OUT, WIDTH), key=mx.random.key(bits)) / 16
        stored = mx.quantize(matrix, **options)
        plain = _plain(stored, bits, options)
        for rows in ROWS:
            x = mx.random.normal((rows, WIDTH), key=mx.random.key(rows))
            x = x if is_cpu() else x.astype(mx.bfloat16)
            got = mx.quantized_matmul(x, *stored, transpose=True, **options)
            far = distance(as_numpy(got), as_numpy(x) @ plain.T)
            if far > bound:
                kind = f"{mode} of {bits} bits in groups of {group_size}"
                yield f"{rows} rows times {kind} are off by {far:.2g}"
            if mode == "affine" and rows <= ROWS[1] and group_size < 128:
                y = x[:, :OUT]
                got = mx.quantized_matmul(y, *stored, transpose=False, **options)
                far = distance(as_numpy(got), as_numpy(y) @ plain)
                if far > bound:
                    yield f"{rows} rows times {bits} bits, not transposed, are off by {far:.2g}"
    yield from _gathered(quick, bound)


def _plain(stored: Any, bits: int, options: dict[str, Any]) -> Any:
    if options["mode"] == "affine":
        return unpacked(stored[0], bits, *stored[1:])
    with mx.stream(mx.cpu):
        return as_numpy(mx.dequantize(*stored, **options))


def _gathered(quick: bool, bound: float) -> Iterator[str]:
    experts = 8
    gathered: Any = mx.gather_qmm
    options: dict[str, Any] = {"group_size": 64, "bits": 4}
    matrices = mx.random.normal((experts, OUT, WIDTH), key=mx.random.key(1)) / 16
    stored: Any = mx.quantize(matrices, **options)
    plain = unpacked(stored[0], 4, stored[1], stored[2])
    random = np.random.default_rng(2)
    for pairs in (8,) if quick else (8, 512):
        for is_sorted in (False, True):
            chosen = random.integers(0, experts, pairs).astype(np.uint32)
            chosen = np.sort(chosen) if is_sorted else chosen
            x = mx.random.normal((pairs, 1, WIDTH), key=mx.random.key(pairs))
            x = x if is_cpu() else x.astype(mx.bfloat16)
            got = gathered(
                x, *stored, rhs_indices=mx.array(chosen), transpose=True, sorted_indices=is_sorted, **options
            )
            expected = np.einsum("mk,mok->mo", as_numpy(x)[:, 0], plain[chosen])
            far = distance(as_numpy(got)[:, 0], expected)
            if far > bound:
                kind = "sorted" if is_sorted else "unsorted"
                yield f"{pairs} {kind} rows gathered by expert are off by {far:.2g}"
