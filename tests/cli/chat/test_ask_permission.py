"""The question before a tool runs: each of its lines is ours, and the whole call can be read back from it."""

from __future__ import annotations

import io
import json
import random
import sys
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.output import DummyOutput

from mlx_qwen3.cli.chat.terminal.ask_permission import PermissionPrompt, max_cells, wrap
from mlx_qwen3.cli.console import SafeConsole
from mlx_qwen3.tools import Answer, Choice, Question, tool
from mlx_qwen3.tools.approval_text import MARGIN, json_text, key_text


@given(st.text(st.characters()), st.integers(20, 120))
def test_wrapped_text_fits_and_reads_back(text: str, width: int) -> None:
    line = json_text(text)
    parts = list(wrap(MARGIN + line, width))
    assert all(max_cells(part) <= width and part.startswith(MARGIN) for part in parts)
    assert "".join(part.removeprefix(MARGIN) for part in parts) == line
    assert not any(part.endswith(" ") for part in parts)


def screen(question: Question, width: int = 80) -> str:
    """What is printed above the prompt."""
    written = io.StringIO()
    console = SafeConsole(file=written, width=width)
    prompt = PermissionPrompt(console, SimpleNamespace(pause=lambda: None), None, lambda: None)
    prompt._keys = SimpleNamespace(paused=lambda: NoKeys())
    prompt._ask = lambda labels, early: Answer(Choice.DENY)
    prompt(question)
    return written.getvalue()


class NoKeys(list):
    def __enter__(self) -> NoKeys:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@tool
def read(path: str) -> str:
    """Read a file."""
    return path


def test_300_calls_of_all_of_unicode_read_back_from_the_screen() -> None:
    dice = random.Random(4)
    for _ in range(300):
        name, value = (
            "".join(chr(dice.randrange(sys.maxunicode)) for _ in range(dice.randrange(1, 60))) for _ in "12"
        )
        read.name = name
        lines = screen(Question(read, {"path": value}, False, False)).splitlines()
        arguments = json_text({"path": value})
        call = f"Allow {key_text(read.key)} {arguments}?"
        shown = "".join(line.removeprefix(MARGIN) for line in lines[:-1])
        long = f"Arguments of the call:{arguments}Allow {key_text(read.key)} with these arguments?"
        assert shown in (call, long)
        assert lines[-1].startswith("y: yes, once")
        assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("length", [10, 200, 5000])
def test_the_name_is_last_however_long_the_arguments_are(length: int) -> None:
    read.name = "read"
    text = screen(Question(read, {"path": "x" * length}, False, False))
    assert "x" * 10 in text
    assert text.splitlines()[-2].startswith("Allow read ")
    assert json.dumps({"path": "x" * length}) in text.replace("\n" + MARGIN, "")


@pytest.mark.parametrize(
    ("early", "late", "choice"),
    [
        ("y\r", "n\r", Choice.DENY),
        ("y", "n no\r", Choice.DENY),
        ("\x03", "y\r", Choice.DENY),
        ("", "maybe\ry\r", Choice.ONCE),
        ("", "Yes\r", Choice.ONCE),
        ("", "no not now\r", Choice.DENY),
        ("", "\x1b", Choice.DENY),
    ],
)
def test_keys_that_wait_when_the_prompt_is_drawn_do_not_answer(early: str, late: str, choice: Choice) -> None:
    cancelled = []
    console = SafeConsole(file=io.StringIO(), width=80)
    prompt = PermissionPrompt(console, None, None, lambda: cancelled.append(True))
    kept: list[KeyPress] = []
    is_over = threading.Event()
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):

        def press_late() -> None:
            """Once the early keys are set aside the prompt is drawn. Without any, this has to be tried."""
            while not is_over.wait(0.3):
                if len(kept) >= len(early):
                    keys.send_text(late)

        keys.send_text(early)
        sender = threading.Thread(target=press_late)
        sender.start()
        try:
            assert prompt._ask({"y": "", "n": ""}, kept).choice is choice
        finally:
            is_over.set()
            sender.join()
    expected = early.replace("\x03", "")
    assert "".join(key.data for key in kept).startswith(expected)
    assert expected == "" or len(kept) == len(expected)
    assert bool(cancelled) is (early == "\x03")
