"""The first run: which model suits this machine? The choice is remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlx_qwen3.cli.chat.settings import remember

if TYPE_CHECKING:
    from rich.console import Console


def choose(console: Console) -> str:
    """Ask which model to use, among those that fit this machine; Enter takes the largest of them.

    Raises KeyboardInterrupt when the user would rather leave, by Ctrl-C or Ctrl-D.
    """
    from mlx_qwen3.checkpoint.plan import fitting
    from mlx_qwen3.device import available_memory

    memory = available_memory()
    members = fitting(memory)
    console.print("Which model? (--model names any other, /model changes it later)\n", style="bold")
    for number, member in enumerate(members, 1):
        console.print(
            f"  {number}  {member.name:<10} {member.num_bytes / 1e9:5.1f} GB to download", highlight=False
        )
    console.print("  0  demo         built in: a tiny model that does sums", highlight=False)
    console.print(f"\n{memory / 1e9:.1f} GB of memory can be used here.", style="dim", highlight=False)
    answer = _ask(len(members))
    model = members[answer - 1].name if answer else "demo"
    remember(model=model)
    return model


def _ask(count: int) -> int:
    """A number from 0 to `count`; Enter means `count`."""
    while True:
        try:
            text = input(f"[0-{count}, Enter for {count}] ").strip() or str(count)
        except EOFError:
            raise KeyboardInterrupt from None
        if text.isdecimal() and int(text) <= count:
            return int(text)
