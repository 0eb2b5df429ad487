"""The process that `Meeting` starts: a script that imports nothing of the package, so that it starts at once.

Its stdin stays open while the ranks meet. Once that is closed all is well, or said by others, and it ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress

# For the line to come through the process itself, if it can still speak.
GRACE_SECONDS = 6.0
# For the last words of a rank to come: its stdout may close first.
WORDS_SECONDS = 1.0
TAIL_BYTES = 1 << 16
STDIN = 0
ERROR = "error: "


def main() -> None:
    task = json.loads(sys.argv[1])
    ranks = {out: (name, err) for name, _, out, err in task["ranks"]}
    deadline = time.monotonic() + task["seconds"]
    ended = wait([STDIN, *ranks], deadline)
    if ended == STDIN:
        return
    if ended is None:
        line = task["late"]
    else:
        name, err = ranks[ended]
        line = f"{name} ended: {last_words(err) or 'it left before the ranks had met'}"
    if wait([STDIN], time.monotonic() + (0 if ended is None else GRACE_SECONDS)) == STDIN:
        return
    os.write(2, f"error: {line}\n".encode(errors="replace"))
    # It holds its interpreter: nothing gentler is heard.
    for process in (task["process"], *(process for _, process, _, _ in task["ranks"])):
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)


def wait(pipes: list[int], deadline: float) -> int | None:
    """The first of `pipes` whose other end is gone; None if none is by the deadline."""
    poll = select.poll()
    for pipe in pipes:
        poll.register(pipe, 0)
    events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    return min((pipe for pipe, _ in events), default=None)


def last_words(file: int) -> str:
    """`last_line`, once there is one; "" if none comes in time."""
    deadline = time.monotonic() + WORDS_SECONDS
    while not (line := last_line(file)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return line


def last_line(file: int) -> str:
    """What a rank said last on stderr, which is written to this file. MLX's own lines do not count."""
    said = os.pread(file, TAIL_BYTES, max(0, os.fstat(file).st_size - TAIL_BYTES))
    lines = [line.strip() for line in said.decode(errors="replace").splitlines()]
    # MLX writes its lines piece by piece: an error may stand in one that it had begun.
    of_mlx = [line for line in lines if line.startswith("[ring]")]
    within = [line.partition(ERROR)[2] for line in of_mlx if ERROR in line]
    told = within or [line.removeprefix(ERROR) for line in lines if line and line not in of_mlx]
    return told[-1][:300] if told else ""


if __name__ == "__main__":
    main()
