"""Errors name Python parameters in the library, and flags on the command line."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

import mlx_qwen3
from mlx_qwen3.cli import app
from mlx_qwen3.cli.errors import chat_error_line, error_line
from mlx_qwen3.errors import InsufficientMemoryError, PromptTooLongError, Qwen3Error

PACKAGE = Path(mlx_qwen3.__file__).parent
ERROR = InsufficientMemoryError(
    "14b needs 15.7 GB of memory, and 11.8 GB can be had",
    [{"kv_bits": 4}, {"kv_bits": 8, "context": 8192}, {"model": "8b"}],
)


def test_suggestions_are_python_arguments_in_the_library() -> None:
    assert str(ERROR) == f"{ERROR.problem}; try kv_bits=4, kv_bits=8 with context=8192 or model='8b'"
    assert str(Qwen3Error("a", [{"calibrate": ...}])) == "a; try calibrate=..."
    assert str(Qwen3Error("nothing to suggest")) == "nothing to suggest"


def test_suggestions_are_flags_on_the_command_line() -> None:
    assert error_line(ERROR) == f"{ERROR.problem}; try --kv-bits 4, --kv-bits 8 --context 8192 or --model 8b"
    assert error_line(Qwen3Error("a", [{"force": True}])) == "a; try --force"
    assert error_line(Qwen3Error("a", [{"calibrate": ...}])) == "a; try --calibrate ..."
    assert error_line(Qwen3Error("a", [{"model": "my models/4b"}])) == "a; try --model 'my models/4b'"


def test_the_chat_names_the_command_that_makes_room() -> None:
    assert chat_error_line(PromptTooLongError("too long; shorten the message")).endswith("with /clear")
    assert chat_error_line(ERROR) == error_line(ERROR)


def test_the_command_line_prints_one_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def fail(arguments: object, **options: object) -> None:
        raise ERROR

    monkeypatch.setattr(app, "_with_one_command", lambda name: fail)
    with pytest.raises(SystemExit) as exited:
        app.main([])
    assert exited.value.code == 1
    assert capsys.readouterr().err == f"error: {error_line(ERROR)}\n"


def test_an_error_survives_another_process() -> None:
    copy = pickle.loads(pickle.dumps(ERROR))
    assert (str(copy), copy.suggestions) == (str(ERROR), ERROR.suggestions)


def test_no_message_outside_the_command_line_names_a_flag() -> None:
    flag = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
    allowed = {"heatmap.py": "CSS variables", "gguf_file.py": "an option of pip", "metadata.py": "a command"}
    for path in PACKAGE.rglob("*.py"):
        if "cli" not in path.relative_to(PACKAGE).parts and path.name not in allowed:
            assert flag.findall(path.read_text(encoding="utf-8")) == [], path
