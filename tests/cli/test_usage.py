"""Arguments that a command cannot read are answered in one line: what, where, and what to do."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import typer.main

from mlx_qwen3.cli import app

COMMANDS: dict[str, Any] = vars(typer.main.get_command(app.app))["commands"]
NUMBERS = [
    (name, max(param.opts, key=len))
    for name, command in COMMANDS.items()
    for param in command.params
    if param.param_type_name == "option" and param.type_descriptor.annotation in (int, float)
]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that `arguments` are refused with, before anything is done."""
    with pytest.raises(SystemExit) as exited:
        app.main(list(arguments))
    assert exited.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_is_not_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = said(capsys, name, "--xyzzy")
    assert line.startswith(f"{name} has no option --xyzzy; `")
    assert line.endswith(f"mlx-qwen3 {name} --help` lists them")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_argument_that_is_missing_or_too_many(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [param for param in COMMANDS[name].params if param.param_type_name == "argument"]
    options = [param for param in COMMANDS[name].params if param.required and param not in arguments]
    if arguments and arguments[0].required:
        assert said(capsys, name).startswith(f"{name} needs {arguments[0].name.upper()}: ")
    given = ["x" for _ in arguments]
    if options:
        assert said(capsys, name, *given).startswith(f"{name} needs {options[0].opts[0]}: ")
    given += [word for option in options for word in (option.opts[0], "x")]
    line = said(capsys, name, *given, "and", "more")
    assert line.startswith(f"{name} takes no 'and more'; ")


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_a_number_that_is_none(name: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = [
        "x" for param in COMMANDS[name].params if param.param_type_name == "argument" and param.required
    ]
    line = said(capsys, name, *needed, option, "a\x1b[2Jfew")
    assert line in [f"{option} takes a {kind}, not 'a\\x1b[2Jfew'" for kind in ("number", "whole number")]
    assert said(capsys, name, *needed, option) == f"{option} needs a value after it"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["chat", "--kv-bit", "4"], "chat has no option --kv-bit; did you mean --kv-bits?"),
        (["chat", "--context", "0"], "--context must be at least 1, not 0"),
        (["chat", "--temperature", "-0.5"], "--temperature must be at least 0, not -0.5"),
        (["chat", "--tools=yes"], "--tools takes no value"),
        (["chat", "hello", "there"], "chat takes no 'hello there'; a prompt goes after -p"),
        (["chta"], "there is no command 'chta'; did you mean chat?"),
        (["bench", "--shape", "5b"], "--shape takes one of "),
        (["bench"], "give either --model or --shape"),
        (["generate", "--batch", "x", "-p", "hi"], "--prompt cannot be given with --batch"),
    ],
)
def test_what_is_said(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, *arguments).startswith(line)


def test_a_command_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(capsys, "\x1b[2J*")
    assert line.startswith("there is no command '\\x1b[2J*'; `")
    assert line.endswith("mlx-qwen3 --help` lists them")


def test_without_a_command_there_is_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mlx-qwen3"])
    with pytest.raises(SystemExit) as exited:
        app.main()
    assert exited.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name, command in COMMANDS.items() if not command.hidden)


def test_pull_and_rm_are_commands_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "models", "pull", "14b").endswith("mlx-qwen3 pull 14b`?")
