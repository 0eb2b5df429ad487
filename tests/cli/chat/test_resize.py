"""A window that changes its size leaves no copy of what is redrawn, neither on the screen nor above it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import DummyCompleter
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output
from reflowing import ReflowingTerminal
from rich.console import Console
from rich.text import Text

from mlx_qwen3.cli.chat.terminal import line_editor
from mlx_qwen3.cli.chat.terminal.region import LiveRegion, reflows
from mlx_qwen3.cli.chat.terminal.turns import ThoughtsPanel

WIDTH, HEIGHT = 80, 24


@pytest.fixture(autouse=True)
def _a_terminal_that_reflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("XTERM_VERSION", raising=False)


# As a turn draws: half of the screen at most. Half of the width, or of the height, is the least.
SIZES = st.lists(
    st.one_of(
        st.tuples(st.integers(WIDTH // 2, 2 * WIDTH), st.just(HEIGHT)),
        st.tuples(st.just(WIDTH), st.integers(HEIGHT // 2 + 1, 2 * HEIGHT)),
    ),
    max_size=6,
)


@given(SIZES, st.integers(1, HEIGHT // 2), st.integers(1, WIDTH), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_running_turn_is_drawn_over_itself(
    sizes: list[tuple[int, int]], count: int, longest: int, has_blocks: bool
) -> None:
    terminal = ReflowingTerminal(WIDTH, HEIGHT)
    terminal.write("a shell's prompt\n" * 30)
    console = Console(file=terminal, width=WIDTH, height=HEIGHT, force_terminal=True)  # type: ignore[arg-type]
    region = LiveRegion(console)
    for number, size in enumerate([(WIDTH, HEIGHT), *sizes, (WIDTH, HEIGHT)]):
        terminal.resize(*size)
        console.size = size  # type: ignore[assignment]
        length = min(longest, size[0])
        lines = [f"<{row}>".ljust(length, "x")[:length] for row in range(count)]
        above = Text(f"block {number}") if has_blocks else None
        region.draw(Text("\n".join(lines), overflow="crop", no_wrap=True), above=above)
        assert terminal.text.count("<") == count
        assert terminal.text.count("shell") == 30
        if has_blocks:
            assert [terminal.text.count(f"block {n}\n") for n in range(number + 1)] == [1] * (number + 1)
    region.clear()
    assert "<" not in terminal.text


def test_the_prompt_is_drawn_over_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_editor, "data_folder", lambda: tmp_path)
    terminal, console = ReflowingTerminal(WIDTH, HEIGHT), Console(width=WIDTH, height=HEIGHT)
    terminal.write("what was said before\r\n")

    def size() -> Size:
        return Size(terminal.height, terminal.width)

    output = Vt100_Output(terminal, size, term="xterm-256color", enable_cpr=False)  # type: ignore[arg-type]
    with create_pipe_input() as keys, create_app_session(input=keys, output=output):
        panel = ThoughtsPanel(console, lambda: "first thought\nsecond thought " + "on and on " * 6)
        editor = line_editor.LineEditor(DummyCompleter(), lambda: "the status line", panel)
        app, read = editor._prompt.app, []
        reader = threading.Thread(target=lambda: read.append(editor.read()), daemon=True)
        reader.start()
        keys.send_text("a message of several words, " * 4 + "\x0f")  # Ctrl-O
        wait_for(lambda: "Ctrl-O hides it" in terminal.text, terminal)
        resized: list[int] = []

        def resize(width: int) -> None:
            terminal.resize(width, HEIGHT)
            console.size = (width, HEIGHT)  # type: ignore[assignment]
            app._on_resize()  # as the signal's handler does
            resized.append(width)

        texts = ("said before", "Ctrl-O hides it", "first thought", "> a message")

        def is_drawn_once() -> bool:
            return resized[-1:] == [width] and all(terminal.text.count(text) == 1 for text in texts)

        for width in (60, 41, 120, 45, WIDTH):
            assert app.loop is not None
            app.loop.call_soon_threadsafe(resize, width)
            wait_for(is_drawn_once, terminal)
        keys.send_text("\r")
        reader.join(60)
    assert read == ["a message of several words, " * 4]
    assert terminal.text.split("\n")[0] == "what was said before"
    assert "message" not in terminal.text


def wait_for(is_so: Callable[[], bool], terminal: ReflowingTerminal) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, terminal.text
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("environment", "does"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)"}, False),
        ({"TERM": "screen-256color", "TMUX": "/tmp/tmux"}, True),
        ({"TERM": "screen"}, False),
        ({"TERM": "linux"}, False),
    ],
)
def test_terminals_that_do_not_wrap_anew(
    environment: dict[str, str], does: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMUX", "XTERM_VERSION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert reflows() is does
