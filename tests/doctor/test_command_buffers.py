"""The length of command buffers: measured on Metal alone, and chosen only where it gains twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlx_qwen3.backend.switches import BUFFER_VARIABLE
from mlx_qwen3.doctor.command_buffers import CommandBuffers, _in_a_process, token_milliseconds


def chosen(*times: float) -> object:
    """What is chosen where MLX's own length, the three others, and a second look take these times."""
    left: Iterator[float] = iter(times)
    buffers = CommandBuffers(lambda length: next(left))
    assert list(buffers.check()) == []
    return buffers.figures.get(BUFFER_VARIABLE)


@pytest.mark.parametrize(
    ("times", "length"),
    [
        ([10, 9, 12, 11, 9.1, 10.1], "20"),
        ([10, 9.9, 9.2, 9.3, 9.0, 10.0], "100"),
        ([10, 9.8, 9.7, 9.6], None),  # too little
        ([10, 9, 12, 11, 9.9, 10.0], None),  # not a second time
    ],
)
def test_a_length_is_chosen_that_gains_twice(times: list[float], length: str | None) -> None:
    assert chosen(*times) == length


def test_nothing_is_measured_where_there_is_no_metal_or_the_user_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlx_qwen3.doctor.command_buffers._in_a_process", None)  # which cannot be called
    monkeypatch.setattr("mlx_qwen3.doctor.command_buffers.is_metal", lambda: False)
    assert list(CommandBuffers().check()) == []
    monkeypatch.setattr("mlx_qwen3.doctor.command_buffers.is_metal", lambda: True)
    monkeypatch.setenv(BUFFER_VARIABLE, "40")
    assert list(CommandBuffers().check()) == []


def test_a_token_is_timed_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < token_milliseconds(layers=1, steps=3) < 10_000
    monkeypatch.setattr(
        "mlx_qwen3.doctor.command_buffers.PROGRAM",
        f"import os; print(os.environ.get({BUFFER_VARIABLE!r}, 7))",
    )
    assert (_in_a_process(100), _in_a_process(None)) == (100, 7)
