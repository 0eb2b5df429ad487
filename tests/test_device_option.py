"""`pytest --device`: where MLX computes, and which tests are about one device."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest
from conftest import devices, has_gpu

ROOT = Path(__file__).parent.parent


def test_mlx_computes_where_the_option_says(device: str) -> None:
    assert mx.default_device() == mx.Device(mx.cpu if device == "cpu" else mx.gpu)


def test_both_devices_are_the_default_where_there_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, option, expected in (
        (False, None, ["cpu"]),
        (True, None, ["cpu", "gpu"]),
        (True, "both", ["cpu", "gpu"]),
        (True, "gpu", ["gpu"]),
        (True, "cpu", ["cpu"]),
    ):
        monkeypatch.setattr("conftest.has_gpu", lambda there=there: there)
        config: Any = SimpleNamespace(getoption=lambda name, option=option: option)
        assert devices(config) == expected


def test_a_gpu_may_differ_more(tolerance: Callable[[float], float], device: str) -> None:
    assert tolerance(1e-5) == (1e-5 if device == "cpu" else 1e-3)


@pytest.mark.gpu_only
def test_a_gpu_computes() -> None:
    assert mx.arange(1000).sum().item() == 499_500


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_in_one_line() -> None:
    command = [sys.executable, "-m", "pytest", "--device", "gpu", "tests/test_device_option.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 4
    assert "--device: MLX finds no GPU here" in result.stderr
