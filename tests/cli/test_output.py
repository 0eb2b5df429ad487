"""No text can control the terminal: one writer filters it, and nothing in cli/ prints around the writer."""

from __future__ import annotations

import ast
import io
import json
import shlex
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from mlx_qwen3.cli import app, output
from mlx_qwen3.cli.console import SafeConsole
from mlx_qwen3.cli.output import error_text, printable, program, write_json
from mlx_qwen3.errors import MAX_MESSAGE_CHARACTERS, is_hidden

CLI = Path(app.__file__).parent
WRITERS = {"output.py", "console.py"}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}
HARMLESS = {"isatty", "fileno", "flush", "encoding"}
PRINTING_NAMES = {"print", "input", "print_formatted_text", "echo", "secho"}
HOSTILE = (
    "\x1b]52;c;eA==\x07 \x1b[2J \x1bP1$r\x1b\\ \x9b31m \x85 \x00\x08\r \u202e\u2066 \u200b\ufeff\u2060\u3164 "
    "\U000e0041"
)
RAW = [char for char in HOSTILE if is_hidden(char)]


def around_the_writer(source: str) -> list[str]:
    """Places in `source` that print by other ways than cli/output.py and cli/console.py."""
    found = []
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            owner, _, name = called.rpartition(".")
            is_printing = name in PRINTING_NAMES and (not owner or name not in ("print", "input"))
            is_writing = name in ("write", "writelines") and owner.endswith(("console.file", "_output"))
            is_raw_console = called in ("os.write", "Console", "console.Console") or name == "out"
            found += [text] if is_printing or is_writing or is_raw_console else []
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {f"sys.{name}" for name in STREAMS}:
            found += [] if node.attr in HARMLESS else [text]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
            found += [text for alias in node.names if alias.name in ("print", "inspect")]
    return found


@pytest.mark.parametrize("path", sorted(CLI.rglob("*.py")), ids=lambda path: path.name)
def test_nothing_prints_around_the_writer(path: Path) -> None:
    if path.name not in WRITERS:
        assert around_the_writer(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "print(x)", "sys.stdout.write(x)", "sys.stderr.buffer", "typer.echo(x, err=True)", "click.secho(x)",
        "Console().print(x)", "self._console.file.write(x)", "os.write(1, x)", "console.out(x)", "input(x)",
        "def f():\n    from rich import print", "print_formatted_text(x)",
    ],
)  # fmt: skip
def test_the_test_sees_each_way_around_the_writer(source: str) -> None:
    assert around_the_writer(source)


@given(st.text(st.characters()))
def test_printable_text_holds_no_hidden_character(text: str) -> None:
    shown = printable(text)
    hidden = [char for char in shown if is_hidden(char) and char not in "\n\t"]
    kept = {char for char in hidden if unicodedata.category(char) == "Zs"}
    newer = {char for char in hidden if unicodedata.category(char) == "Cn" and ord(char) >> 16 == 1}
    joiners = {*"\u200c\u200d\ufe0e\ufe0f"}
    assert {*hidden} <= kept | newer | joiners
    shown.encode()


@pytest.mark.parametrize("char", ["\u200c", "\u200d", "\ufe0e", "\ufe0f"])
def test_joiners_hide_nowhere(char: str) -> None:
    for text in (f"a{char}b", f"{char}a", f"a{char}", f"1{char}{char}2", f" {char} "):
        assert char not in printable(text)


def test_ordinary_text_stays_as_it_is() -> None:
    text = "Zürich 北京 שלום می‌خواهم ❤️ 👨‍👩‍👧 हिन्दी 10\u00a0€\n\tok"
    assert printable(text) == text


def console() -> tuple[SafeConsole, io.StringIO]:
    written = io.StringIO()
    return SafeConsole(file=written, width=60, force_terminal=False), written


def test_a_console_prints_no_raw_character_whatever_is_printed() -> None:
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    for thing in (
        HOSTILE,
        Text(HOSTILE),
        Markdown(f"# {HOSTILE}\n\n&#x202e;`{HOSTILE}`\n\n```\n{HOSTILE}\n```"),
        table,
    ):
        safe, written = console()
        safe.print(thing)
        assert not [char for char in RAW if char in written.getvalue()]
        with safe.capture() as captured:
            safe.print(thing)
        assert not [char for char in RAW if char in captured.get()]


def test_a_console_takes_no_markup_from_text() -> None:
    safe, written = console()
    safe.print("[bold]a[/bold] [link=https://example.com]b[/link] :smile:")
    assert written.getvalue() == "[bold]a[/bold] [link=https://example.com]b[/link] :smile:\n"


def test_an_error_is_one_short_line_with_both_ends() -> None:
    line = error_text("cannot read \x1b[2J\n" + "x" * 10_000_000 + " try --force")
    assert line.startswith("cannot read [2J xxx")
    assert line.endswith(" try --force")
    assert len(line) <= MAX_MESSAGE_CHARACTERS
    assert not [char for char in RAW if char in error_text(HOSTILE)]


@pytest.mark.parametrize(
    "arguments", [["chat", "--" + HOSTILE], ["models", HOSTILE], [HOSTILE], ["bench", "--vs", HOSTILE]]
)
def test_wrong_arguments_are_printed_safely(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        app.main(arguments)
    assert exited.value.code == 2
    written = capsys.readouterr()
    assert not [char for char in RAW if char in written.out + written.err]


@given(st.text(st.characters()))
def test_json_is_the_same_and_holds_no_hidden_character(text: str) -> None:
    written = io.StringIO()
    write_json(json.dumps({"text": text}, ensure_ascii=False), written)
    line = written.getvalue().removesuffix("\n")
    assert not [char for char in line if is_hidden(char)]
    # A surrogate pair written as two escapes is one character, as JSON defines it.
    assert json.loads(line)["text"] == json.loads(json.dumps(text))


def test_results_are_filtered_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output.write(HOSTILE)
    assert capsys.readouterr().out == HOSTILE
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output.write(HOSTILE)
    assert not [char for char in RAW if char in capsys.readouterr().out]


def test_the_program_is_named_as_a_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    assert program() == "mlx-qwen3"  # started from a clone without an install
    (folder / "mlx-qwen3").write_text("#!/bin/sh\n")
    (folder / "mlx-qwen3").chmod(0o755)
    assert program() == "'my env/bin/mlx-qwen3'"
    monkeypatch.chdir("/usr")
    assert program() == shlex.quote(str(folder / "mlx-qwen3"))
    monkeypatch.setenv("PATH", str(folder))
    assert program() == "mlx-qwen3"
