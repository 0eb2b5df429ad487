"""The scripts without an install: one line that says what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest
from e2e.terminal import ROOT


@pytest.mark.parametrize("script", [["chat.py"], ["convert.py"], ["-m", "mlx_qwen3"]])
def test_what_is_missing_is_said_in_one_line(script: list[str]) -> None:
    # -S: without the installed packages.
    result = subprocess.run([sys.executable, "-S", *script], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "is not installed" in line
    assert "make chat" in line
