"""Benchmarks. Run `python -m benchmarks.NAME` from the top of the repository."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # some use the tests' helpers
