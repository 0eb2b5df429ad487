"""Draws docs/chat.svg, a short chat with the demo as the terminal shows it: `python docs/make_picture.py`."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from mlx_qwen3 import Engine
from mlx_qwen3.cli.chat import live
from mlx_qwen3.cli.chat.loop import DEMO_NOTE

MESSAGES = ["what is 347+285?", "bonjour", "how do I convert a model? /no_think"]


def main() -> None:
    console = Console(record=True, width=96, file=io.StringIO(), force_terminal=True, highlight=False)
    live.SECONDS_BETWEEN_DRAWINGS = float("inf")  # only what stays in the scrollback
    printer = live.LivePrinter(console)
    with Engine("demo") as engine:
        session = engine.session(sampling={"seed": 2})
        console.print(f"demo · {engine.model.args.num_parameters / 1e6:.1f}M parameters", style="bold")
        console.print(DEMO_NOTE, style="dim")
        for message in MESSAGES:
            console.print(f"\n[bold]>[/] {message}")
            for event in session.send(message):
                printer.show(event)
            if printer.thoughts and message == MESSAGES[0]:
                console.print("\n[bold]>[/] /thoughts")
                console.print(printer.thoughts.strip(), style="dim")
            session.prepare()
    picture = console.export_svg(title="mlx-qwen3 chat")
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # nothing is fetched to show it
    (Path(__file__).parent / "chat.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
