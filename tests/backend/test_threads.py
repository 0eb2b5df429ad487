"""How many threads compute: what the user says, else what the process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_qwen3.backend import threads
from mlx_qwen3.errors import EngineError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    threads.num_threads.cache_clear()
    yield
    threads.num_threads.cache_clear()


def test_the_affinity_mask_counts() -> None:
    assert threads.num_threads() == 8


@pytest.mark.parametrize(("content", "count"), [("150000 100000", 2), ("max 100000", 8), ("1000 100000", 1)])
def test_the_quota_of_a_container_counts(content: str, count: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(content + "\n")
    assert threads.num_threads() == count


def test_the_old_kind_of_quota_counts(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert threads.num_threads() == 3


def test_the_user_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.VARIABLE, "3")
    assert threads.num_threads() == 3


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "99999"])
def test_nonsense_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.VARIABLE, text)
    with pytest.raises(EngineError, match=threads.VARIABLE):
        threads.num_threads()
