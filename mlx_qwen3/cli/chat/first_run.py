"""The first run: asks which model to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlx_qwen3.cli.output import ask

if TYPE_CHECKING:
    from rich.console import Console


def choose_model(console: Console) -> str:
    """Ask which of the models that fit this machine to use. Enter takes the largest.

    Raises KeyboardInterrupt if the user leaves with Ctrl-C or Ctrl-D.
    """
    from mlx_qwen3.backend.device import available_memory
    from mlx_qwen3.checkpoint.memory_plan import members_that_fit

    memory = available_memory()
    members = members_that_fit(memory)
    console.print("Which model? (--model names any other, /model changes it later)\n", style="bold")
    for number, member in enumerate(members, 1):
        console.print(
            f"  {number}  {member.name:<10} {member.num_bytes / 1e9:5.1f} GB to download", highlight=False
        )
    console.print("  0  demo         built in: a tiny model that does sums")
    console.print(f"\n{memory / 1e9:.1f} GB of memory can be used here.", style="dim")
    return _ask(console, ["demo", *(member.name for member in members)])


def _ask(console: Console, names: list[str]) -> str:
    """One of `names`, typed as its number or itself. Enter takes the last."""
    last = len(names) - 1
    choices = {"": names[-1], **{str(number): name for number, name in enumerate(names)}}
    choices |= {name.lower(): name for name in names}
    while True:
        try:
            text = ask(f"[0-{last}, Enter for {last}] ").strip().lower()
        except EOFError:
            raise KeyboardInterrupt from None
        if text in choices:
            return choices[text]
        console.print(f"type a number from 0 to {last}, or a name: {', '.join(names)}")
