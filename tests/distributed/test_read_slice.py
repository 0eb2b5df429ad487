"""Slices of stored tensors are read piece by piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import numpy as np
import pytest

import mlx_qwen3.checkpoint.shares.read_slice as read_slice
from mlx_qwen3.checkpoint.safetensors_files import tensors_in
from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.distributed.plan import Span


def stored(folder: Path, values: list[np.ndarray[Any, Any]]) -> list[StoredTensor]:
    """The values as tensors of a file, in their order."""
    path = folder / "model.safetensors"
    mx.save_safetensors(str(path), {f"t{i}": mx.array(value) for i, value in enumerate(values)})
    return sorted(tensors_in(path), key=lambda tensor: tensor.name)


@pytest.mark.parametrize("piece", [1, 100, 1 << 24])
@pytest.mark.parametrize("shape", [(7,), (9, 8), (3, 10, 12)], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_any_slice_is_read(
    piece: int, shape: tuple[int, ...], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_slice, "PIECE_BYTES", piece)
    random = np.random.default_rng(0)
    values = [random.integers(0, 2**32, shape, np.uint32) for _ in range(count)]
    tensors, whole = stored(tmp_path, values), np.stack(values)
    spans: list[tuple[Span | None, Span | None]] = [(None, None), (None, Span(2, shape[-1] - 1))]
    if len(shape) > 1:
        spans.append((Span(3, shape[-2] - 2), None))
    for rows, columns in spans:
        expected = whole if rows is None else whole[..., slice(*rows), :]
        expected = expected if columns is None else expected[..., slice(*columns)]
        found = read_slice.read_slices(tensors, rows, columns, np.uint32)
        np.testing.assert_array_equal(np.array(found), expected.reshape(-1, expected.shape[-1]))


def test_memory_holds_the_slice_and_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_slice, "PIECE_BYTES", 1 << 16)
    (tensor,) = stored(tmp_path, [np.ones((2048, 1024), np.float32)])
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    found = read_slice.read_slices([tensor], Span(1024, 2048), None, np.float32)
    assert found.nbytes == 1 << 22
    assert mx.get_peak_memory() - before < found.nbytes + 10 * (1 << 16)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    (tensor,) = stored(tmp_path, [np.ones((64, 64), np.float32)])
    with tensor.file.open("r+b") as file:
        file.truncate(tensor.offset + 100)
    with pytest.raises(ValueError, match="cut off"):
        read_slice.read_slices([tensor], None, None, np.float32)
