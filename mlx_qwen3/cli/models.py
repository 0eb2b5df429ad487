"""`mlx-qwen3 models`: lists the family: sizes, what is downloaded, what fits this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_qwen3.cli.hub.pull import cached_repositories
from mlx_qwen3.files import read_bytes

if TYPE_CHECKING:
    from mlx_qwen3.checkpoint import FamilyMember

KV_BITS = (None, 8, 4)
MAX_CONFIG_BYTES = 2**20


def models(
    hosts: Annotated[
        Path | None, typer.Option(help="Show what fits on the machines of this file together, and the split.")
    ] = None,
) -> None:
    """List the Qwen3 family: sizes, what is downloaded, the longest context that fits this machine."""
    if hosts is not None:
        from mlx_qwen3.cli.distributed.machines import show_machines

        show_machines(hosts)
        return
    from rich.table import Table

    from mlx_qwen3.backend.device import available_memory
    from mlx_qwen3.checkpoint import FAMILY
    from mlx_qwen3.cli.console import SafeConsole

    memory = available_memory()
    on_disk = {repo.repo_id: repo.size_on_disk for repo in cached_repositories()}
    table = Table(box=None, pad_edge=False)
    titles = ("model", "size", "active", "weights", "on disk", "fits", "context")
    for column in (*titles, "8-bit KV", "4-bit KV"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for member in FAMILY.values():
        contexts = [longest_context(member, bits, memory) for bits in KV_BITS]
        table.add_row(
            member.name,
            f"{member.num_parameters / 1e9:.1f}B",
            f"{member.num_active_parameters / 1e9:.1f}B",
            f"{member.num_bytes / 1e9:.1f} GB",
            "yes" if member.repository in on_disk else "",
            "yes" if any(contexts) else "",
            *(f"{context:,}" if context else "" for context in contexts),
        )
    console = SafeConsole()
    console.print(table)
    console.print("\ndemo is built in: a tiny model that does sums", style="dim")
    family = {member.repository for member in FAMILY.values()}
    others = {name: size for name, size in on_disk.items() if name not in family and _is_qwen3(name)}
    for name, size in others.items():
        console.print(f"{name}  {size / 1e9:.1f} GB on disk")
    console.print(
        f"\n4-bit weights; context: the most tokens that {memory / 1e9:.1f} GB of memory hold beside the "
        "weights (beyond 32,768 with YaRN)",
        style="dim",
    )


def longest_context(member: FamilyMember, bits: int | None, memory: int) -> int:
    """The most tokens that fit beside the weights in `memory` bytes, with a KV cache of so many `bits`.

    0 if they are too few for a conversation.
    """
    from mlx_qwen3.cache.config import CacheConfig
    from mlx_qwen3.checkpoint.memory_plan import LEAST_CONTEXT, family_request

    longest = family_request(member, CacheConfig(bits=bits)).longest_context(memory)
    return longest if longest >= LEAST_CONTEXT else 0


def _is_qwen3(repository: str) -> bool:
    """Whether a repository in the hub's cache holds a Qwen3 checkpoint."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, "config.json")
    if not isinstance(path, str):
        return False
    try:
        config = json.loads(read_bytes(Path(path), MAX_CONFIG_BYTES))
        return str(config["model_type"]).startswith("qwen3")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
