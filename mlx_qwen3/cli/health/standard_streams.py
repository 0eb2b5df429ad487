"""Makes standard input, output and error usable, whatever the program was started with."""

from __future__ import annotations

import io
import os
import sys


def repair_streams() -> None:
    """Open the streams that are closed, and replace what an encoding cannot write in place of failing.

    A daemon, or a shell's `<&-`, may close descriptors 0 to 2. The next file that is opened would get the
    number: MLX takes 0 for a failure, and what is printed would go into a file.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # open() takes the lowest free number, which is this one
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
