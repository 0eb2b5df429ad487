"""Programs that are killed while they write."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def run_until_killed(code: str, path: Path, seconds: float) -> None:
    """Run `code` with the argument `path`, and kill -9 it so many seconds after it has printed a line."""
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    process.wait()
