"""The line editor, without a terminal."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.application.current import set_app
from prompt_toolkit.completion import DummyCompleter
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from mlx_qwen3.cli.chat.terminal import line_editor
from mlx_qwen3.cli.chat.terminal.turns import ThoughtsPanel


async def signal_to(editor: line_editor.LineEditor) -> None:
    with set_app(editor._prompt.app):
        editor._prompt.app.key_processor.send_sigint()


def test_a_signal_after_enter_is_noted_and_raises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_editor, "data_folder", lambda: tmp_path)
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        editor = line_editor.LineEditor(DummyCompleter(), lambda: "", ThoughtsPanel(Console(), str))
        keys.send_text("hello\r")
        assert editor.read() == "hello"
        assert not editor.is_interrupted
        asyncio.run(signal_to(editor))  # prompt_toolkit may handle the signal as late as this
        assert editor.is_interrupted
        keys.send_text("again\r")
        assert editor.read() == "again"
        assert not editor.is_interrupted


def test_a_signal_before_enter_interrupts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_editor, "data_folder", lambda: tmp_path)
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        editor = line_editor.LineEditor(DummyCompleter(), lambda: "", ThoughtsPanel(Console(), str))
        app = editor._prompt.app
        app.after_render += lambda _: None if app.is_done else app.key_processor.send_sigint()
        with pytest.raises(KeyboardInterrupt):
            editor.read()
