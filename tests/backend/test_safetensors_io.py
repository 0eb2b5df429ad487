"""Headers of safetensors files, beside those the safetensors package writes and reads."""

from __future__ import annotations

import json
from pathlib import Path

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from mlx_qwen3.backend.safetensors_io import DTYPES, TensorSpec, encode_header, read_header

METADATA = {"format": "mlx", "name": "ü"}


def test_a_file_with_an_encoded_header_is_read_by_the_safetensors_package(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(5, dtype=np.uint8)}
    specs = [TensorSpec("a", mx.float32, (2, 3)), TensorSpec("b", mx.uint8, (5,))]
    header, starts = encode_header(specs, METADATA)
    assert len(header) % 8 == 0
    data = header + arrays["a"].tobytes() + arrays["b"].tobytes()
    assert data[starts["b"] :] == arrays["b"].tobytes()
    (tmp_path / "x.safetensors").write_bytes(data)
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        assert file.metadata() == METADATA
        for name, array in arrays.items():
            assert np.array_equal(file.get_tensor(name), array)


def test_a_file_of_the_safetensors_package_is_described_by_its_header(tmp_path: Path) -> None:
    path, array = tmp_path / "x.safetensors", np.arange(8, dtype=np.int32).reshape(4, 2)
    save_file({"x": array, "empty": np.zeros((0, 3), np.float16)}, path, METADATA)
    header = read_header(path)
    assert header.metadata == METADATA
    entry = header.tensors["x"]
    assert (entry.dtype, entry.shape) == ("I32", (4, 2))
    assert path.read_bytes()[entry.start : entry.stop] == array.tobytes()
    empty = header.tensors["empty"]
    assert (empty.shape, empty.start) == ((0, 3), empty.stop)


def test_without_metadata_there_is_none(tmp_path: Path) -> None:
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    assert read_header(tmp_path / "x.safetensors").metadata == {}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_spelled_as_mlx_spells_it(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    mx.save_safetensors(str(path), {"x": mx.zeros((3, 2), DTYPES[dtype])})
    assert read_header(path).tensors["x"].dtype == dtype


def test_files_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError):
        read_header(path)
    save_file({"x": np.zeros(100, np.float32)}, path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:20], b"", json.dumps({"x": 1}).encode()):
        path.write_bytes(damaged)
        with pytest.raises(ValueError):
            read_header(path)
