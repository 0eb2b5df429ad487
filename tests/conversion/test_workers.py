"""Chunks of a matrix, worked on by several threads."""

import threading
import time

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoints import MOE, write_checkpoint

import mlx_qwen3.conversion.source.chunks as chunks_module
import mlx_qwen3.conversion.workers as workers
from mlx_qwen3.backend.matmul import dequantize_fp32
from mlx_qwen3.backend.threads import num_threads
from mlx_qwen3.conversion import convert, estimate
from mlx_qwen3.conversion.numerics import kl_divergence, row_dots
from mlx_qwen3.conversion.source.chunks import chunk_bytes, row_chunks
from mlx_qwen3.conversion.workers import in_order, num_workers


@pytest.fixture
def several(monkeypatch):
    monkeypatch.setattr(workers, "num_workers", lambda: 2)


def slow_first(item: int) -> int:
    time.sleep(0.02 if item == 0 else 0)
    return item


def test_results_come_in_order_and_from_several_threads(several):
    assert list(in_order(slow_first, range(9))) == list(range(9))
    assert threading.get_ident() not in set(in_order(lambda _: threading.get_ident(), range(9)))


def test_no_more_is_done_ahead_than_there_are_workers(several):
    asked = []
    results = in_order(slow_first, (asked.append(item) or item for item in range(100)))
    next(results)
    assert len(asked) <= workers.num_workers() + 1
    results.close()


def test_an_exception_of_the_work_is_raised_to_the_caller(several):
    def work(item: int) -> float:
        return 1 / (item - 3)

    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(in_order(work, range(9)))
    assert list(in_order(work, range(3))) == [-1 / 3, -1 / 2, -1]


def test_mlx_works_on_every_thread(several):
    def work(item: int) -> mx.array:
        result = mx.full((4,), item) * 2
        mx.eval(result)
        return result

    assert [result.tolist() for result in in_order(work, range(5))] == [[2 * i] * 4 for i in range(5)]


class Matrix:
    dtype = mx.bfloat16

    def __init__(self, rows: int, width: int):
        self.shape, self.num_rows = (rows, width), rows


@given(st.integers(1, 400), st.integers(1, 200), st.integers(0, 50), st.integers(1, 3))
def test_chunks_make_up_the_whole_and_are_small(rows, width, first, factor):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks_module, "chunk_bytes", lambda: 1000)
        chunks = list(row_chunks(Matrix(first + rows, width), first, rows, factor))
    assert [row for start, count in chunks for row in range(start, start + count)] == list(
        range(first, first + rows)
    )
    assert all(count * width * 2 <= 1000 * factor or count == 1 for _, count in chunks)
    assert len(chunks) >= min(rows, workers.num_workers())


def test_dots_are_those_of_numpy():
    a, b = (np.random.default_rng(i).normal(size=(5, 77)).astype(np.float32) for i in (1, 2))
    np.testing.assert_allclose(
        row_dots(mx.array(a), mx.array(b)), (a.astype(np.float64) * b).sum(-1), rtol=1e-4
    )


def test_the_device_decides_when_it_is_used(monkeypatch):
    """A default device set after the import counts."""
    monkeypatch.setattr(workers, "is_cpu", lambda: False)
    monkeypatch.setattr(chunks_module, "is_cpu", lambda: False)
    assert (num_workers(), chunk_bytes()) == (1, 32 * 2**20)
    monkeypatch.setattr(workers, "is_cpu", lambda: True)
    monkeypatch.setattr(chunks_module, "is_cpu", lambda: True)
    assert (num_workers(), chunk_bytes()) == (min(8, num_threads()), 2**20)


@pytest.mark.cpu_only(reason="one thread converts for a GPU")
def test_several_threads_write_what_one_writes(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "source", MOE)
    monkeypatch.setattr(chunks_module, "chunk_bytes", lambda: 20_000)
    written, errors = [], []
    for threads in (1, 3):
        for module in (workers, chunks_module, estimate):
            monkeypatch.setattr(module, "num_workers", lambda threads=threads: threads)
        report = convert(tmp_path / "source", tmp_path / str(threads))
        written.append((tmp_path / str(threads) / "model.safetensors").read_bytes())
        assert report.verification is not None
        errors.append(report.verification.error)
    assert written[0] == written[1]
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)


def test_kl_divergence_is_that_of_the_definition():
    expected, actual = (np.random.default_rng(i).normal(0, 3, (5, 77)).astype(np.float32) for i in (1, 2))
    p, q = (np.exp(x.astype(np.float64)) for x in (expected, actual))
    p, q = (x / x.sum(axis=-1, keepdims=True) for x in (p, q))
    assert kl_divergence(expected, actual) == pytest.approx((p * np.log(p / q)).sum(axis=-1).mean(), rel=1e-5)
    assert kl_divergence(expected, expected) == 0
    actual[3, 5] = np.nan
    assert np.isnan(kl_divergence(expected, actual))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_unpacked_values_are_those_of_mlx(bits):
    matrix = mx.random.normal((3, 128), key=mx.random.key(0))
    packed, *grid = mx.quantize(matrix, group_size=64, bits=bits)
    expected = mx.dequantize(packed, *grid, group_size=64, bits=bits)
    found = dequantize_fp32(packed, *grid, group_size=64, bits=bits, mode="affine")
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
