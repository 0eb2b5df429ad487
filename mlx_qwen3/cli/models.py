"""`mlx-qwen3 models`: the family, what is downloaded, what fits this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_qwen3.checkpoint import FamilyMember


def models() -> None:
    """List the Qwen3 family: sizes, what is downloaded, what fits this machine."""
    import psutil  # type: ignore[import-untyped]
    from rich.console import Console
    from rich.table import Table

    from mlx_qwen3.checkpoint import FAMILY
    from mlx_qwen3.cli.chat.choose import SHARE_FOR_WEIGHTS

    memory = int(psutil.virtual_memory().total)
    table = Table(box=None, pad_edge=False)
    for column in ("model", "parameters", "active", "4-bit weights", "downloaded", "fits"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for member in FAMILY.values():
        fits = member.num_bytes < memory * SHARE_FOR_WEIGHTS
        table.add_row(
            member.name,
            f"{member.num_parameters / 1e9:.1f}B",
            f"{member.num_active_parameters / 1e9:.1f}B",
            f"{member.num_bytes / 1e9:.1f} GB",
            "yes" if is_downloaded(member) else "",
            "yes" if fits else "",
        )
    console = Console()
    console.print(table)
    share = f"{SHARE_FOR_WEIGHTS:.0%} of this machine's {memory / 2**30:.0f} GiB"
    console.print(f"\nfits: the weights take at most {share}", style="dim", highlight=False)


def is_downloaded(member: FamilyMember) -> bool:
    """Whether the model's repository is in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(member.repository, "config.json"), str)
