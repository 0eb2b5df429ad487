"""The first run: asks which model to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from mlx_qwen3.cli.output import ask

if TYPE_CHECKING:
    from rich.console import Console


def choose_model(console: Console) -> str:
    """Ask which of the models that fit this machine to use. Enter takes the recommended one.

    That is the largest that leaves at least half of the memory to other programs. A download is confirmed.
    Raises KeyboardInterrupt if the user leaves with Ctrl-C or Ctrl-D.
    """
    from mlx_qwen3.backend.device import available_memory
    from mlx_qwen3.checkpoint.memory_plan import members_that_fit

    memory = available_memory()
    members = members_that_fit(memory)
    modest = [member.name for member in members_that_fit(memory // 2)]
    recommended = modest[-1] if modest else "demo"
    console.print("Which model? (--model names any other, /model changes it later)\n", style="bold")
    for number, member in enumerate(members, 1):
        line = f"  {number}  {member.name:<10} {member.num_bytes / 1e9:5.1f} GB"
        note = "  recommended" if member.name == recommended else ""
        if member.name not in modest:
            note = "  leaves less than half of the memory to other programs"
        console.print(Text.assemble(line, (note, "cyan" if "recommended" in note else "dim")))
    console.print("  0  demo         built in: a tiny model that does sums")
    console.print(f"\n{memory / 1e9:.1f} GB of memory can be used here.", style="dim")
    sizes = {member.name: member.num_bytes for member in members}
    while True:
        name = _ask(console, ["demo", *sizes], recommended)
        if name == "demo" or _is_confirmed(f"{name} is {sizes[name] / 1e9:.1f} GB to download"):
            return name


def _is_confirmed(what: str) -> bool:
    """Whether to go on; Enter does."""
    return _line(f"{what}. Go on? [Y/n] ") in ("", "y", "yes")


def _line(question: str) -> str:
    try:
        return ask(question).strip().lower()
    except EOFError:
        raise KeyboardInterrupt from None


def _ask(console: Console, names: list[str], recommended: str) -> str:
    """One of `names`, typed as its number or itself. Enter takes the recommended one."""
    last = len(names) - 1
    choices = {"": recommended, **{str(number): name for number, name in enumerate(names)}}
    choices |= {name.lower(): name for name in names}
    while True:
        text = _line(f"[0-{last}, Enter for {recommended}] ")
        if text in choices:
            return choices[text]
        console.print(f"type a number from 0 to {last}, or a name: {', '.join(names)}")
