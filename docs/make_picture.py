"""Draws docs/chat.svg, a short chat with the demo as the terminal shows it: `python docs/make_picture.py`."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console, Group
from rich.text import Text

from mlx_qwen3 import Engine
from mlx_qwen3.cli.chat.repl import DEMO_NOTE
from mlx_qwen3.cli.chat.terminal.live import LivePrinter
from mlx_qwen3.cli.chat.terminal.markdown import console_theme
from mlx_qwen3.cli.chat.terminal.turns import user_message

WIDTH = 96
MESSAGES = ["what is 347+285?", "bonjour", "how do I convert a model? /no_think"]
MOVEMENTS = re.compile(r"\x1b\[[?0-9;]*[A-Za-ln-z]|\r")  # all but colours


def main() -> None:
    terminal = io.StringIO()
    console = Console(width=WIDTH, file=terminal, force_terminal=True, highlight=False, theme=console_theme())
    printer = LivePrinter(console)  # never entered, so nothing is drawn but what stays
    with Engine("demo") as engine:
        session = engine.session(sampling={"seed": 2})
        size = f"{engine.model.args.num_parameters / 1e6:.1f}M parameters · context {engine.context:,}"
        console.print(Text.assemble(("demo", "bold cyan"), (f"  {size}", "bright_black")))
        console.print(DEMO_NOTE, style="dim")
        for message in MESSAGES:
            console.print(Group(Text(), user_message(message), Text()))
            for event in session.send(message):
                printer.show(event)
            if printer.thoughts and message == MESSAGES[0]:
                console.print("\n[bold cyan]>[/] [bright_black](Ctrl-O)[/]\n")
                console.print(printer.thoughts.strip(), style="dim")
            session.prepare()
    picture = Console(record=True, width=WIDTH, file=io.StringIO())
    picture.print(Text.from_ansi(MOVEMENTS.sub("", terminal.getvalue())))
    svg = picture.export_svg(title="mlx-qwen3 chat")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # nothing is fetched to show it
    (Path(__file__).parent / "chat.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
