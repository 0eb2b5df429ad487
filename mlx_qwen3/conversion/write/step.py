"""Converts one parameter in chunks of rows, so that memory stays at some hundred MB."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from mlx_qwen3.conversion.planning import ConversionStep
from mlx_qwen3.conversion.quantize.gptq import Moments, quantize_gptq
from mlx_qwen3.conversion.quantize.search import quantize_searched
from mlx_qwen3.conversion.source.chunks import refuse_not_finite, row_chunks, to_bytes
from mlx_qwen3.conversion.source.packed import PackedTensor
from mlx_qwen3.conversion.source.tensors import SourceTensor
from mlx_qwen3.conversion.workers import in_order

Write = Callable[[str, memoryview], None]
"""(tensor name, its next bytes): each tensor is written from front to back, several of them in turns."""


def run_step(
    step: ConversionStep, write: Write, on_bytes: Callable[[int], None], factors: Moments | None = None
) -> None:
    """Read, cast and quantize one parameter, and pass its bytes to `write`.

    Chunks give the same result as the whole matrix, because each row is quantized by itself.
    on_bytes: called with the bytes read of each chunk. factors: see `convert_rows`.
    Raises CheckpointError, also for NaN and infinity, which would spoil a whole group.
    """
    names = [output.name for output in step.outputs]
    for source in step.sources:

        def convert_chunk(
            chunk: tuple[int, int], source: SourceTensor = source
        ) -> tuple[int, list[memoryview]]:
            if step.repacked:
                return chunk[1], [to_bytes(array) for array in _repack(source, chunk, step)]
            rows = source.read(*chunk)
            refuse_not_finite(rows, source, step.dtype)
            return chunk[1], [to_bytes(array) for array in convert_rows(rows, step, factors)]

        for count, parts in in_order(convert_chunk, row_chunks(source)):
            on_bytes(source.num_bytes * count // source.num_rows)
            for name, data in zip(names, parts, strict=True):
                write(name, data)


def convert_rows(rows: mx.array, step: ConversionStep, factors: Moments | None = None) -> list[mx.array]:
    """Rows of a parameter -> the same rows of each of its outputs.

    factors: what `factorize` returns for the matrix's inputs, if they were measured.
    """
    rows = rows.astype(step.dtype)
    if step.quantization is None:
        return [rows]
    if step.searched and factors is not None:
        return list(quantize_gptq(rows, step.quantization, factors))
    if step.searched:
        return list(quantize_searched(rows, step.quantization))
    return list(mx.quantize(rows, **step.quantization.mlx_arguments()))


def _repack(source: SourceTensor, chunk: tuple[int, int], step: ConversionStep) -> list[mx.array]:
    """Rows of a parameter whose numbers and scales MLX can hold as they are."""
    assert isinstance(source, PackedTensor)
    assert step.quantization is not None
    words, *scales = source.read_repacked(*chunk, step.quantization)
    for part in scales:
        refuse_not_finite(part, source, step.dtype)
    return [words, *(part.astype(step.dtype) for part in scales)]
