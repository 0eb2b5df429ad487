"""Writes strange text in every way the command line has; test_strange_text.py reads the terminal."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, get_args

from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from mlx_qwen3 import events
from mlx_qwen3.cli import output
from mlx_qwen3.cli.chat.terminal.printers import make_printer, make_terminal_printer
from mlx_qwen3.cli.chat.terminal.region import LiveRegion
from mlx_qwen3.cli.console import SafeConsole
from mlx_qwen3.errors import Qwen3Error
from mlx_qwen3.tools.approval_text import describe, json_text, key_text

# OSC with both its ends, CSI, DCS, C1, controls, bidi, invisible.
RAW = (
    *(
        "\x1b]52;c;ZXZpbA==\x07",
        "\x1b]0;evil\x1b\\",
        "\x1b[77;88H",
        "\x1b[31;41;5m",
        "\x1bP1$r0m\x1b\\",
        "\x1bcEVIL",
    ),
    *("\x9b31m", "\x9d0;evil\x9c", "\x90q", "\x85", "\x00", "\x08\x08", "evil\rEVIL", "\x0e", "\x7f"),
    *("\u202e", "\u2066", "\u200f", "\u061c", "\u200b", "\u2060", "\ufeff", "\u3164", "\U000e0041", "\u2028"),
)
STRANGE = "a " + " b ".join(RAW) + " c"


def strange_events() -> Iterator[events.Event]:
    """Each kind of event, with strange text in every field that takes text."""
    for kind in get_args(events.Event):
        values: dict[str, Any] = {}
        for field in fields(kind):
            kinds = str(field.type)
            if "Stats" in kinds:
                values[field.name] = _stats()
            elif "TokenLogprob" in kinds:
                token = events.TokenLogprob(1, STRANGE, -1.0)
                values[field.name] = (token,) if "tuple" in kinds else token
            elif "dict" in kinds:
                values[field.name] = {STRANGE: STRANGE}
            elif "Literal" in kinds or "FinishReason" in kinds:
                values[field.name] = "parked" if "parked" in kinds else "length"
            elif "str" in kinds:
                values[field.name] = STRANGE
            else:
                values[field.name] = True if kinds == "bool" else 1
        yield kind(**values)


def _stats() -> events.Stats:
    return events.Stats(1, 1, 1, 1, 0.1, 1.0, 1.0, 1, "length", stop_string=STRANGE)


def places() -> dict[str, Callable[[], object]]:
    """Name -> a call that writes strange text to the terminal."""
    console = SafeConsole()
    dumb = SafeConsole(force_terminal=False)
    table = Table(STRANGE, title=STRANGE)
    table.add_row(STRANGE)

    def show_events(printer: Any) -> None:
        with printer:
            for event in strange_events():
                printer.show(event)
                time.sleep(0.06)  # a painter draws 20 times a second

    return {
        "write": lambda: output.write(STRANGE + "\n"),
        "write_line": lambda: output.write_line(STRANGE),
        "write_json": lambda: output.write_json(json.dumps({STRANGE: STRANGE}, ensure_ascii=False)),
        "write_note": lambda: output.write_note(STRANGE),
        "write_error": lambda: output.write_error(STRANGE),
        "an error": lambda: output.write_error(str(Qwen3Error(STRANGE, [{STRANGE: STRANGE}]))),
        "show_warning": lambda: warnings.warn(STRANGE, stacklevel=1),
        "ask": lambda: output.ask(STRANGE),
        "console text": lambda: console.print(STRANGE, Text(STRANGE), style="dim"),
        "console markdown": lambda: console.print(
            Markdown(
                f"# {STRANGE}\n\n`{STRANGE}` [{STRANGE}](https://a/{STRANGE})\n\n```{STRANGE}\n{STRANGE}\n```"
            )
        ),
        "console table": lambda: console.print(table),
        "console rule": lambda: console.rule(STRANGE),
        "console log": lambda: console.log(STRANGE),
        "console status": lambda: console.status(STRANGE).__enter__().stop(),
        "console exception": lambda: console.print_json(json.dumps(STRANGE)),
        "live region": lambda: LiveRegion(console).draw(Text(STRANGE), above=Text(STRANGE)),
        "live printer": lambda: show_events(make_terminal_printer(console, True)),
        "footer": lambda: show_events(make_terminal_printer(console, True, lambda: Text(STRANGE))),
        "dumb printer": lambda: show_events(make_terminal_printer(dumb, True)),
        "json printer": lambda: show_events(make_printer(as_json=True)),
        "tool": lambda: console.print(describe(_tool())),
        "call": lambda: console.print(f"{key_text(STRANGE)} {json_text({STRANGE: STRANGE})}"),
    }


def _tool() -> Any:
    from mlx_qwen3.tools import tool

    def named(a: str) -> str:
        return a

    named.__doc__ = STRANGE
    made = tool(named)
    made.name = made.server = made.origin = STRANGE
    return made


def main() -> None:
    warnings.showwarning = output.show_warning
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, write in places().items():
        if only in name:
            output.write_codes(f"\nBEGIN {name}\n")
            write()
            output.write_codes(f"\nEND {name}\n")


if __name__ == "__main__":
    main()
