"""chat.py with a model that takes its time, a few tokens a second, until the file HURRY is there.

What a test types while an answer streams comes in time, however busy the machine.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from mlx_qwen3.cli.app import main
from mlx_qwen3.generation.scheduler import Scheduler

HURRY = Path(os.environ["HURRY"])
step = Scheduler.step


def slow_step(scheduler: Scheduler) -> bool:
    if not HURRY.exists():
        time.sleep(0.1)
    return step(scheduler)


Scheduler.step = slow_step  # type: ignore[method-assign]
main(["chat", *sys.argv[1:]])
