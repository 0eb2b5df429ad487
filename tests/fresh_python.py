"""Runs Python code in a process of its own: what is loaded into a process stays in it."""

from __future__ import annotations

import os
import subprocess
import sys


def python(code: str, *arguments: str, **env: str) -> str:
    """What `code` prints, run with these arguments and environment variables."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=True)
    return done.stdout.strip()
