"""`models --hosts FILE`: what fits on several machines together, and how it would be split."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_qwen3.distributed.hosts import Host, Hosts, read_hosts
from mlx_qwen3.errors import DistributedError, one_line

if TYPE_CHECKING:
    from mlx_qwen3.checkpoint import FamilyMember
    from mlx_qwen3.checkpoint.validation import ParameterShapes

ASK = "from mlx_qwen3.backend.device import available_memory; print(available_memory())"
ASK_SECONDS = 30


def show_machines(path: Path) -> None:
    """Print a table: for each model and mode the longest context, and each machine's part."""
    from rich.table import Table

    from mlx_qwen3.checkpoint import FAMILY, expected_tensors
    from mlx_qwen3.cli.console import SafeConsole

    hosts = read_hosts(path)
    memories = [memory_of(host, number == 0) for number, host in enumerate(hosts.hosts)]
    table = Table(box=None, pad_edge=False)
    for column in ("model", "weights", "mode", "context", "GB of each machine", "split"):
        table.add_column(column, justify="right" if column in ("weights", "context") else "left")
    for member in FAMILY.values():
        tensors = expected_tensors(member.config)
        for mode in ("tensor", "pipeline"):
            name = (member.name, f"{member.num_bytes / 1e9:.1f} GB") if mode == "tensor" else ("", "")
            table.add_row(*name, mode, *split_of(member, mode, memories, tensors))
    console = SafeConsole()
    console.print(table)
    console.print(f"\n4-bit weights; memory for the model: {_machines(hosts, memories)}", style="dim")


def split_of(
    member: FamilyMember, mode: str, memories: list[int], tensors: ParameterShapes
) -> tuple[str, str, str]:
    """The longest context, the GB of weights on each machine, and the split, or why there is none."""
    from mlx_qwen3.checkpoint.memory_plan import LEAST_CONTEXT, MemoryRequest
    from mlx_qwen3.checkpoint.shares.load_share import plan_shares, share_config, share_weights
    from mlx_qwen3.distributed.plan import describe

    try:
        shares = plan_shares(member.config, mode, memories, None, tensors)
    except DistributedError as error:
        return "", "", one_line(error)
    weights = [share_weights(member.config, share, tensors) for share in shares]
    contexts = [
        MemoryRequest(member.name, share_config(member.config, share), size, 2).longest_context(memory)
        for share, size, memory in zip(shares, weights, memories, strict=True)
    ]
    fits = min(contexts) >= LEAST_CONTEXT
    sizes = " + ".join(f"{size / 1e9:.1f}" for size in weights)
    return f"{min(contexts):,}" if fits else "does not fit", sizes, describe(shares)


def memory_of(host: Host, is_this_one: bool) -> int:
    """Bytes that a machine has for a model. Asks it by ssh unless the file says. Raises DistributedError."""
    from mlx_qwen3.backend.device import available_memory

    if host.memory is not None:
        return host.memory
    if is_this_one or host.is_local:
        return available_memory()
    command = f'{host.python or sys.executable} -c "{ASK}"'
    ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "--", host.ssh, command]
    try:
        result = subprocess.run(
            ssh, capture_output=True, text=True, errors="replace", timeout=ASK_SECONDS, check=False
        )
        return int(result.stdout)
    except ValueError:
        why = one_line(result.stderr or result.stdout or "it said nothing", 200)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = one_line(error, 200)
    raise DistributedError(
        f"{host.ssh} did not say how much memory it has: {why}; write `memory` (GB) for it in the file"
    )


def _machines(hosts: Hosts, memories: list[int]) -> str:
    named = zip(hosts.hosts, memories, strict=True)
    return ", ".join(f"{host.ssh} {memory / 1e9:.1f} GB" for host, memory in named)
