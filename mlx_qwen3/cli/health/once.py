"""The quick check that the chat makes once on a machine with a GPU, and again with another MLX or system.

Some chips have computed garbage in attention (https://github.com/ml-explore/mlx/issues/4022): a chat would
show nonsense, and the user would not know why.
"""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_qwen3.backend.switches import BUFFER_LENGTHS, BUFFER_VARIABLE
from mlx_qwen3.backend.versions import installed_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlx_qwen3.doctor import Report

MAX_BYTES = 2**16


def check_once(say: Callable[[str], object]) -> None:
    """Make the quick check unless this machine, system and MLX passed or failed it before.

    say: told before the check, and of each problem. The chat goes on in any case.
    """
    from mlx_qwen3.backend.device import is_cpu

    if is_cpu():  # the tests are run on CPUs
        return
    from mlx_qwen3.doctor import diagnose
    from mlx_qwen3.doctor.machine import key

    if _remembered().get("key") == key():
        return
    say("checking once whether this machine computes what it should (some seconds) ...")
    report = diagnose(quick=True)
    remember(report)
    for problem in report.problems:
        say(f"this machine computes wrong numbers: {problem}")
    if not report.is_well:
        say("answers may be nonsense; `mlx-qwen3 doctor` says more, and prints a block to report it with")


def remember(report: Report) -> None:
    """Note what was found on this machine. Where that cannot be written, it is looked for again.

    What a longer examination measured is kept when a quick one of the same machine follows.
    """
    from mlx_qwen3.doctor.machine import key
    from mlx_qwen3.files import write_atomically

    before = _remembered()
    noted: dict[str, object] = {"key": key(), "problems": report.problems}
    buffers = [finding for finding in report.findings if finding.name == "command buffers"]
    if buffers:
        noted["settings"] = {
            name: value for name, value in buffers[0].figures.items() if name == BUFFER_VARIABLE
        }
        noted["mlx"] = installed_version("mlx")
    elif before.get("key") == noted["key"]:
        noted |= {name: before[name] for name in ("settings", "mlx") if name in before}
    with suppress(OSError):
        write_atomically(_file(), json.dumps(noted))


def apply_settings() -> None:
    """Set what the doctor found faster on this Mac, before MLX starts; what the user has set stays."""
    if platform.system() != "Darwin":
        return
    noted = _remembered()
    settings = noted.get("settings")
    if not isinstance(settings, dict) or not settings or noted.get("mlx") != installed_version("mlx"):
        return
    if settings.get(BUFFER_VARIABLE) in [str(length) for length in BUFFER_LENGTHS]:
        os.environ.setdefault(BUFFER_VARIABLE, settings[BUFFER_VARIABLE])


def _remembered() -> dict[str, object]:
    from mlx_qwen3.files import read_bytes

    try:
        content = json.loads(read_bytes(_file(), MAX_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _file() -> Path:
    from platformdirs import user_data_path

    return user_data_path("mlx-qwen3") / "doctor.json"
