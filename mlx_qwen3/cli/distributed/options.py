"""The flags of a model over several machines, and what they do before an engine is opened."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from mlx_qwen3.cli.output import write_error, write_line

DISTRIBUTED = typer.Option(
    help="Split the model over several machines: `tensor` (each has a part of every layer) or `pipeline` "
    "(each has some of the layers)."
)
HOSTS = typer.Option(
    help="With --distributed: the file that names the machines, as mlx.distributed_config writes it. Not "
    "needed under mlx.launch."
)
# For the error to come through the command itself, which also puts the terminal in order.
GRACE_SECONDS = 3.0


def engine_options(distributed: str | None, hosts: Path | None) -> dict[str, Any]:
    """Options of Engine for the two flags.

    On rank 0 the other ranks are started if --hosts is given. On the others this does not return: they follow
    rank 0, then exit.
    """
    if distributed is None:
        if hosts is not None:
            raise typer.BadParameter("needs --distributed tensor or pipeline", param_hint="--hosts")
        return {}
    from mlx_qwen3.distributed.group import rank_of_process
    from mlx_qwen3.distributed.plan import check_mode

    check_mode(distributed)
    rank = rank_of_process()
    if rank is None:
        if hosts is None:
            raise typer.BadParameter(
                "needs the machines: --hosts FILE, or start this under mlx.launch", param_hint="--distributed"
            )
        from mlx_qwen3.cli.distributed.launch import start_ranks
        from mlx_qwen3.distributed.hosts import read_hosts

        start_ranks(read_hosts(hosts), leave)
    elif rank:
        follow()
    from mlx_qwen3.engine.loading.ranks import when_lost

    when_lost(leave)
    return {"distributed": distributed}


def follow() -> None:
    """Follow rank 0, which another machine runs. Started by --hosts; there is nothing to give."""
    from mlx_qwen3.cli.distributed.launch import RUNS
    from mlx_qwen3.engine.loading.ranks import follow as follow_rank_0

    write_line(RUNS)
    follow_rank_0()


class TerminalState:
    """The terminal's settings at the start, for a process that has to leave at once."""

    def __init__(self) -> None:
        self._settings: list[Any] | None = None
        with suppress(Exception):  # no terminal, or none of Unix
            import termios

            self._settings = termios.tcgetattr(sys.stdin.fileno())

    def restore(self) -> None:
        if self._settings is not None:
            with suppress(Exception):
                import termios

                termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, self._settings)


_terminal = TerminalState()


def leave(line: str) -> None:
    """End the process with `line` if it has not ended by itself in a moment: a machine is lost."""
    time.sleep(GRACE_SECONDS)
    _terminal.restore()
    write_error(line)
    os._exit(1)
